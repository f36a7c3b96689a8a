//! Optimisers: one pass over a parameter, its gradient and its state.

use super::parallel::{CHUNK, for_chunks};
use super::{CpuDevice, read_f32, read_u32, write_f32};
use crate::device::kernels::{AdamStep, SgdStep};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

/// Whether the gate stops the update.
fn is_shut(operation: &'static str, gate: Option<&Tensor>) -> Result<bool> {
    match gate {
        Some(gate) => Ok(read_u32(operation, "gate", gate)?[0] != 0),
        None => Ok(false),
    }
}

pub(super) fn sgd_step(
    _: &CpuDevice,
    options: SgdStep,
    parameter: &Tensor,
    gradient: &Tensor,
    momentum: &Tensor,
    gate: Option<&Tensor>,
) -> Result<()> {
    let op = "sgd_step";
    shapes::optimizer(op, parameter, gradient, &[("momentum", momentum)], gate)?;
    if is_shut(op, gate)? {
        return Ok(());
    }
    // Exact, since a scale is a power of two.
    let unscale = 1.0 / options.gradient_scale;
    let g = read_f32(op, "gradient", gradient)?;
    let mut p = write_f32(op, "parameter", parameter)?;
    let mut m = write_f32(op, "momentum", momentum)?;
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

pub(super) fn adam_step(
    _: &CpuDevice,
    options: AdamStep,
    parameter: &Tensor,
    gradient: &Tensor,
    first_moment: &Tensor,
    second_moment: &Tensor,
    gate: Option<&Tensor>,
) -> Result<()> {
    let op = "adam_step";
    let state = [
        ("first_moment", first_moment),
        ("second_moment", second_moment),
    ];
    shapes::optimizer(op, parameter, gradient, &state, gate)?;
    if is_shut(op, gate)? {
        return Ok(());
    }
    let [step_size, root] = options.corrections();
    // Exact, since a scale is a power of two.
    let unscale = 1.0 / options.gradient_scale;
    let g = read_f32(op, "gradient", gradient)?;
    let mut p = write_f32(op, "parameter", parameter)?;
    let mut m = write_f32(op, "first_moment", first_moment)?;
    let mut v = write_f32(op, "second_moment", second_moment)?;
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
