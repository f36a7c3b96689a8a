//! Launches of `shaders/elementwise.wgsl`, and copies.

use super::copy::copy_elements;
use super::shaders::elementwise::{self as kernels, Params};
use super::{EntryPoint, GpuDevice};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Records `entry` over `y` and `inputs` of the same shape; `scalar` is bound whole before `y`.
fn launch(
    device: &GpuDevice,
    operation: &'static str,
    entry: &'static EntryPoint,
    factor: f32,
    inputs: &[&Tensor],
    scalar: Option<&Tensor>,
    y: &Tensor,
) -> Result<()> {
    for (start, count) in device.slices(operation, y.len(), &[1])? {
        let mut parts = Vec::with_capacity(3);
        for x in inputs {
            parts.push(device.part(operation, "x", x, start, count)?);
        }
        if let Some(scalar) = scalar {
            parts.push(device.whole(operation, "s", scalar)?);
        }
        parts.push(device.part(operation, "y", y, start, count)?);
        let count = count.div_ceil(4);
        let params = Params {
            count: count as u32,
            factor,
        };
        device.launch_for(y.dtype(), entry, params, &parts, count.div_ceil(256))?;
    }
    Ok(())
}

pub(super) fn add(device: &GpuDevice, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    shapes::activations("add", "a", a)?;
    shapes::same("add", ("a", a), ("b", b))?;
    let y = device.allocate(a.shape(), a.dtype())?;
    launch(device, "add", &kernels::ADD, 0.0, &[a, b], None, &y)?;
    Ok(y)
}

pub(super) fn relu(device: &GpuDevice, x: &Tensor) -> Result<Tensor> {
    shapes::activations("relu", "x", x)?;
    let y = device.allocate(x.shape(), x.dtype())?;
    launch(device, "relu", &kernels::RELU, 0.0, &[x], None, &y)?;
    Ok(y)
}

pub(super) fn relu_backward(device: &GpuDevice, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    shapes::activations("relu_backward", "dy", dy)?;
    shapes::same("relu_backward", ("dy", dy), ("y", y))?;
    let dx = device.allocate(dy.shape(), dy.dtype())?;
    launch(
        device,
        "relu_backward",
        &kernels::RELU_BACKWARD,
        0.0,
        &[dy, y],
        None,
        &dx,
    )?;
    Ok(dx)
}

pub(super) fn relu_backward_in_place(device: &GpuDevice, dy: &Tensor, y: &Tensor) -> Result<()> {
    let operation = "relu_backward_in_place";
    shapes::activations(operation, "dy", dy)?;
    shapes::same(operation, ("dy", dy), ("y", y))?;
    shapes::distinct(operation, ("dy", dy), ("y", y))?;
    let entry = &kernels::RELU_BACKWARD_IN_PLACE;
    launch(device, operation, entry, 0.0, &[y], None, dy)
}

pub(super) fn scale(device: &GpuDevice, factor: f32, x: &Tensor) -> Result<Tensor> {
    shapes::floats("scale", "x", x)?;
    let y = device.floats(x.shape())?;
    launch(device, "scale", &kernels::SCALE, factor, &[x], None, &y)?;
    Ok(y)
}

pub(super) fn axpy(device: &GpuDevice, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
    shapes::activations("axpy", "x", x)?;
    shapes::same("axpy", ("x", x), ("y", y))?;
    shapes::distinct("axpy", ("x", x), ("y", y))?;
    launch(device, "axpy", &kernels::AXPY, factor, &[x], None, y)
}

pub(super) fn broadcast(device: &GpuDevice, s: &Tensor, shape: &[usize]) -> Result<Tensor> {
    s.expect("broadcast", "s", &[1], DType::F32)?;
    let y = device.floats(shape)?;
    launch(
        device,
        "broadcast",
        &kernels::BROADCAST,
        0.0,
        &[],
        Some(s),
        &y,
    )?;
    Ok(y)
}

pub(super) fn concat(device: &GpuDevice, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let rows = shapes::concat(a, b)?;
    let mut shape = a.shape().to_vec();
    shape[0] = rows;
    let y = device.floats(&shape)?;
    copy_elements(device, "concat", (a, 0), (&y, 0), a.len())?;
    copy_elements(device, "concat", (b, 0), (&y, a.len()), b.len())?;
    Ok(y)
}

pub(super) fn slice(device: &GpuDevice, x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
    let row = shapes::slice(x, start, count)?;
    let mut shape = x.shape().to_vec();
    shape[0] = count;
    let y = device.floats(&shape)?;
    copy_elements(device, "slice", (x, start * row), (&y, 0), count * row)?;
    Ok(y)
}
