//! One pass over a parameter, its gradient and its state.

use super::{AdamUpdate, LarsUpdate, SgdStep, SgdUpdate};
use crate::device::cpu::parallel::{CHUNK, for_chunks, map};
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// Whether the gate is set, which disables the update.
pub(in crate::ops) fn gate_is_set(cpu: &Cpu, gate: Option<&Tensor>) -> Result<bool> {
    match gate {
        Some(gate) => Ok(cpu.read_u32(gate)?[0] != 0),
        None => Ok(false),
    }
}

/// One step of SGD. The gradient is multiplied by `unscale`.
fn descend(
    cpu: &Cpu,
    options: SgdStep,
    unscale: f32,
    [parameter, gradient, momentum]: [&Tensor; 3],
) -> Result<()> {
    let g = cpu.read(gradient)?;
    let mut p = cpu.write(parameter)?;
    let mut m = cpu.write(momentum)?;
    let mut parts: Vec<[&mut [f32]; 2]> = p
        .chunks_mut(CHUNK)
        .zip(m.chunks_mut(CHUNK))
        .map(|(p, m)| [p, m])
        .collect();
    for_chunks(&mut parts, 1, |i, parts| {
        let [p, m] = &mut parts[0];
        let g = &g[i * CHUNK..][..p.len()];
        for ((p, m), &g) in p.iter_mut().zip(m.iter_mut()).zip(g) {
            let g = g * unscale + options.weight_decay * *p;
            *m = if options.first {
                g
            } else {
                options.momentum * *m + g
            };
            let step = if options.nesterov {
                g + options.momentum * *m
            } else {
                *m
            };
            *p -= options.learning_rate * step;
        }
    });
    Ok(())
}

impl RunOn<Cpu> for SgdUpdate<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<()> {
        if gate_is_set(cpu, self.gate)? {
            return Ok(());
        }
        // Exact, because the scale is a power of two.
        let unscale = 1.0 / self.step.gradient_scale;
        let tensors = [self.parameter, self.gradient, self.momentum];
        descend(cpu, self.step, unscale, tensors)
    }
}

/// The Euclidean norm. In float64, no square of an f32 overflows or underflows.
fn norm(x: &[f32]) -> f64 {
    let chunks: Vec<&[f32]> = x.chunks(CHUNK).collect();
    let square = |&x: &f32| f64::from(x) * f64::from(x);
    let squares = map(chunks.len(), |i| chunks[i].iter().map(square).sum::<f64>());
    squares.iter().sum::<f64>().sqrt()
}

impl RunOn<Cpu> for LarsUpdate<'_> {
    /// A step of SGD whose gradient and weight decay are multiplied by the rate of the tensor.
    fn run(&self, cpu: &Cpu, _: ()) -> Result<()> {
        if gate_is_set(cpu, self.gate)? {
            return Ok(());
        }
        let options = self.step;
        let [p, g] = [self.parameter, self.gradient].map(|x| cpu.read(x).map(|x| norm(&x)));
        let (p, g) = (p?, g? / f64::from(options.gradient_scale));
        let decay = f64::from(options.weight_decay);
        let [rate, decay] = if p > 0.0 && g > 0.0 {
            let rate =
                f64::from(options.trust_coefficient) * p / (g + decay * p + f64::from(options.eps));
            [rate, rate * decay]
        } else {
            [1.0, 0.0]
        };
        let step = SgdStep {
            learning_rate: options.learning_rate,
            momentum: options.momentum,
            nesterov: false,
            weight_decay: decay as f32,
            gradient_scale: options.gradient_scale,
            first: false,
        };
        let unscale = rate / f64::from(options.gradient_scale);
        let tensors = [self.parameter, self.gradient, self.momentum];
        descend(cpu, step, unscale as f32, tensors)
    }
}

impl RunOn<Cpu> for AdamUpdate<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<()> {
        if gate_is_set(cpu, self.gate)? {
            return Ok(());
        }
        let options = self.step;
        let [step_size, root] = options.corrections();
        // Exact, because the scale is a power of two.
        let unscale = 1.0 / options.gradient_scale;
        let g = cpu.read(self.gradient)?;
        let mut p = cpu.write(self.parameter)?;
        let mut m = cpu.write(self.first_moment)?;
        let mut v = cpu.write(self.second_moment)?;
        let mut parts: Vec<[&mut [f32]; 3]> = p
            .chunks_mut(CHUNK)
            .zip(m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)))
            .map(|(p, (m, v))| [p, m, v])
            .collect();
        for_chunks(&mut parts, 1, |i, parts| {
            let [p, m, v] = &mut parts[0];
            let g = &g[i * CHUNK..][..p.len()];
            for (((p, m), v), &g) in p.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(g) {
                let g = g * unscale + options.weight_decay * *p;
                *m = options.beta1 * *m + (1.0 - options.beta1) * g;
                *v = options.beta2 * *v + (1.0 - options.beta2) * g * g;
                *p -= step_size * *m / (v.sqrt() / root + options.eps);
            }
        });
        Ok(())
    }
}
