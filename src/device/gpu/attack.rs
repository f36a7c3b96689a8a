//! Launches of `shaders/attack.wgsl`.

use super::GpuDevice;
use super::shaders::attack::{ATTACK_STEP, Params};
use crate::device::kernels::AttackStep;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn attack_step(
    device: &GpuDevice,
    step: AttackStep,
    x: &Tensor,
    dx: &Tensor,
    clean: &Tensor,
) -> Result<Tensor> {
    let operation = "attack_step";
    shapes::attack_step(step, x, dx, clean)?;
    let y = device.floats(x.shape())?;
    for (start, count) in device.slices(operation, y.len(), &[1])? {
        let parts = [
            device.part(operation, "x", x, start, count)?,
            device.part(operation, "dx", dx, start, count)?,
            device.part(operation, "clean", clean, start, count)?,
            device.part(operation, "y", &y, start, count)?,
        ];
        let count = count.div_ceil(4);
        let params = Params {
            count: count as u32,
            alpha: step.alpha,
            eps: step.eps,
            low: step.low,
            high: step.high,
        };
        device.launch(&ATTACK_STEP, params, &parts, count.div_ceil(256))?;
    }
    Ok(y)
}
