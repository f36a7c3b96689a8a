//! Loops over fixed chunks.

use std::ops::Range;

use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::device::cpu::parallel::CHUNK;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// The elements of chunk `i`.
fn range<T>(i: usize, part: &[T]) -> Range<usize> {
    i * CHUNK..i * CHUNK + part.len()
}

/// `y = f(x)`
fn map(cpu: &Cpu, x: &Tensor, f: impl Fn(f32) -> f32 + Sync + Send) -> Result<Tensor> {
    let mut y = cpu.allocate_activations(x.len(), x.dtype());
    let stored = cpu.read_activations(x)?;
    let values = stored.values();
    y.for_chunks(CHUNK, |i, y| {
        values.with(range(i, y), |x| {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
        });
    });
    Ok(cpu.activations(x.shape(), y))
}

/// `y = f(a, b)`
fn zip(
    cpu: &Cpu,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> Result<Tensor> {
    let mut y = cpu.allocate_activations(a.len(), a.dtype());
    let (left, right) = (cpu.read_activations(a)?, cpu.read_activations(b)?);
    let (left, right) = (left.values(), right.values());
    y.for_chunks(CHUNK, |i, y| {
        left.with(range(i, y), |a| {
            right.with(range(i, y), |b| {
                let pairs = a.iter().zip(b);
                y.iter_mut()
                    .zip(pairs)
                    .for_each(|(y, (&a, &b))| *y = f(a, b));
            });
        });
    });
    Ok(cpu.activations(a.shape(), y))
}

/// `y = f(y, x)`, in place.
fn change(
    cpu: &Cpu,
    y: &Tensor,
    x: &Tensor,
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> Result<()> {
    let stored = cpu.read_activations(x)?;
    let x = stored.values();
    cpu.change_activations(y, CHUNK, |i, y| {
        x.with(range(i, y), |x| {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(*y, x));
        });
    })
}

impl RunOn<Cpu> for Add<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        zip(cpu, self.a, self.b, |a, b| a + b)
    }
}

impl RunOn<Cpu> for Relu<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        map(cpu, self.x, |x| if x < 0.0 { 0.0 } else { x })
    }
}

/// See [`ReluBackward`].
pub(crate) fn relu_backward(cpu: &Cpu, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    let gate = |dy, y| if y > 0.0 { dy } else { 0.0 };
    if dy.is_unshared() {
        change(cpu, dy, y, gate)?;
        return Ok(dy.clone());
    }
    zip(cpu, dy, y, gate)
}

impl RunOn<Cpu> for ReluBackward<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        relu_backward(cpu, &self.dy, self.y)
    }
}

impl RunOn<Cpu> for Scale<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let factor = self.factor;
        map(cpu, self.x, |x| factor * x)
    }
}

impl RunOn<Cpu> for Accumulate<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        if self.sum.is_unshared() {
            change(cpu, &self.sum, self.x, |sum, x| sum + x)?;
            return Ok(self.sum.clone());
        }
        zip(cpu, &self.sum, self.x, |sum, x| sum + x)
    }
}

impl RunOn<Cpu> for Broadcast<'_> {
    fn run(&self, cpu: &Cpu, len: usize) -> Result<Tensor> {
        let mut y = cpu.allocate(len);
        y.fill(cpu.read(self.value)?[0]);
        Ok(cpu.floats(self.shape, y))
    }
}
