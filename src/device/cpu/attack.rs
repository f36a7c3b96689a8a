//! One step of a gradient attack.

use super::parallel::{CHUNK, for_chunks};
use super::{CpuDevice, read_f32};
use crate::device::kernels::AttackStep;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn attack_step(
    device: &CpuDevice,
    step: AttackStep,
    x: &Tensor,
    dx: &Tensor,
    clean: &Tensor,
) -> Result<Tensor> {
    let operation = "attack_step";
    shapes::attack_step(step, x, dx, clean)?;
    let mut y = device.take(x.len());
    let values = read_f32(operation, "x", x)?;
    let gradients = read_f32(operation, "dx", dx)?;
    let originals = read_f32(operation, "clean", clean)?;
    for_chunks(&mut y, CHUNK, |i, part| {
        let range = i * CHUNK..i * CHUNK + part.len();
        let inputs = values[range.clone()]
            .iter()
            .zip(&gradients[range.clone()])
            .zip(&originals[range]);
        for (y, ((&x, &dx), &clean)) in part.iter_mut().zip(inputs) {
            let sign = f32::from(dx > 0.0) - f32::from(dx < 0.0);
            let moved = x + step.alpha * sign;
            let inside = moved.max(clean - step.eps).min(clean + step.eps);
            *y = inside.max(step.low).min(step.high);
        }
    });
    Ok(device.floats(x.shape(), y))
}
