//! Launches of `shaders/optimizer.wgsl`.

use super::shaders::optimizer::{self as kernels, Params};
use super::{EntryPoint, GpuDevice};
use crate::device::kernels::{AdamStep, Kernels, SgdStep};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Records `entry` over the parameter's vec4s; `changed` are the parameter and its state.
fn launch(
    device: &GpuDevice,
    operation: &'static str,
    entry: &'static EntryPoint,
    params: Params,
    gate: Option<&Tensor>,
    gradient: &Tensor,
    changed: &[(&'static str, &Tensor)],
) -> Result<()> {
    let gate = match gate {
        Some(gate) => gate.clone(),
        None => device.zeros(&[1], DType::U32)?,
    };
    for (start, count) in device.slices(operation, gradient.len(), &[1])? {
        let mut parts = vec![
            device.whole(operation, "gate", &gate)?,
            device.part(operation, "gradient", gradient, start, count)?,
        ];
        for (name, x) in changed {
            parts.push(device.part(operation, name, x, start, count)?);
        }
        let count = count.div_ceil(4);
        let params = Params {
            count: count as u32,
            ..params
        };
        device.launch(entry, params, &parts, count.div_ceil(256))?;
    }
    Ok(())
}

pub(super) fn sgd_step(
    device: &GpuDevice,
    options: SgdStep,
    parameter: &Tensor,
    gradient: &Tensor,
    momentum: &Tensor,
    gate: Option<&Tensor>,
) -> Result<()> {
    let operation = "sgd_step";
    let state = [("momentum", momentum)];
    shapes::optimizer(operation, parameter, gradient, &state, gate)?;
    let params = Params {
        learning_rate: options.learning_rate,
        momentum: options.momentum,
        nesterov: u32::from(options.nesterov),
        first: u32::from(options.first),
        weight_decay: options.weight_decay,
        unscale: 1.0 / options.gradient_scale,
        ..bytemuck::Zeroable::zeroed()
    };
    let changed = [("parameter", parameter), ("momentum", momentum)];
    launch(
        device,
        operation,
        &kernels::SGD,
        params,
        gate,
        gradient,
        &changed,
    )
}

pub(super) fn adam_step(
    device: &GpuDevice,
    options: AdamStep,
    parameter: &Tensor,
    gradient: &Tensor,
    moments: [&Tensor; 2],
    gate: Option<&Tensor>,
) -> Result<()> {
    let operation = "adam_step";
    let [first, second] = moments;
    let state = [("first_moment", first), ("second_moment", second)];
    shapes::optimizer(operation, parameter, gradient, &state, gate)?;
    let [step_size, root] = options.corrections();
    let params = Params {
        weight_decay: options.weight_decay,
        unscale: 1.0 / options.gradient_scale,
        step_size,
        root,
        beta1: options.beta1,
        beta2: options.beta2,
        eps: options.eps,
        ..bytemuck::Zeroable::zeroed()
    };
    let changed = [
        ("parameter", parameter),
        ("first_moment", first),
        ("second_moment", second),
    ];
    launch(
        device,
        operation,
        &kernels::ADAM,
        params,
        gate,
        gradient,
        &changed,
    )
}
