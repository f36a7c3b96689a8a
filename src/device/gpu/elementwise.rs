//! Launches of `shaders/elementwise.wgsl`, and copies.

use super::copy::copy_elements;
use super::shaders::elementwise_pairs as pairs;
use super::shaders::elementwise_vectors::{self as vectors, Params};
use super::{EntryPoint, GpuDevice};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// An entry point for tensors of any size and, where there is one, that for whole eights on a processor.
type Entries = (&'static EntryPoint, Option<&'static EntryPoint>);

/// Records one of `entries` over `y` and `inputs` of the same shape; `scalar` is bound whole before `y`.
fn launch(
    device: &GpuDevice,
    operation: &'static str,
    (vectors, pairs): Entries,
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
        let (entry, width) = match pairs {
            Some(pairs) if count.is_multiple_of(8) && device.context.prefers_pairs() => (pairs, 8),
            _ => (vectors, 4),
        };
        let count = count.div_ceil(width);
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
    launch(
        device,
        "add",
        (&vectors::ADD, Some(&pairs::ADD)),
        0.0,
        &[a, b],
        None,
        &y,
    )?;
    Ok(y)
}

pub(super) fn relu(device: &GpuDevice, x: &Tensor) -> Result<Tensor> {
    shapes::activations("relu", "x", x)?;
    let y = device.allocate(x.shape(), x.dtype())?;
    launch(
        device,
        "relu",
        (&vectors::RELU, Some(&pairs::RELU)),
        0.0,
        &[x],
        None,
        &y,
    )?;
    Ok(y)
}

pub(super) fn relu_backward(device: &GpuDevice, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    shapes::activations("relu_backward", "dy", dy)?;
    shapes::same("relu_backward", ("dy", dy), ("y", y))?;
    let dx = device.allocate(dy.shape(), dy.dtype())?;
    launch(
        device,
        "relu_backward",
        (&vectors::RELU_BACKWARD, Some(&pairs::RELU_BACKWARD)),
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
    let entries = (
        &vectors::RELU_BACKWARD_IN_PLACE,
        Some(&pairs::RELU_BACKWARD_IN_PLACE),
    );
    launch(device, operation, entries, 0.0, &[y], None, dy)
}

pub(super) fn scale(device: &GpuDevice, factor: f32, x: &Tensor) -> Result<Tensor> {
    shapes::floats("scale", "x", x)?;
    let y = device.floats(x.shape())?;
    launch(
        device,
        "scale",
        (&vectors::SCALE, None),
        factor,
        &[x],
        None,
        &y,
    )?;
    Ok(y)
}

pub(super) fn scale_by(device: &GpuDevice, s: &Tensor, x: &Tensor) -> Result<Tensor> {
    s.expect("scale_by", "s", &[1], DType::F32)?;
    shapes::floats("scale_by", "x", x)?;
    let y = device.floats(x.shape())?;
    launch(
        device,
        "scale_by",
        (&vectors::SCALE_BY, None),
        0.0,
        &[x],
        Some(s),
        &y,
    )?;
    Ok(y)
}

pub(super) fn axpy(device: &GpuDevice, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
    shapes::activations("axpy", "x", x)?;
    shapes::same("axpy", ("x", x), ("y", y))?;
    shapes::distinct("axpy", ("x", x), ("y", y))?;
    launch(
        device,
        "axpy",
        (&vectors::AXPY, Some(&pairs::AXPY)),
        factor,
        &[x],
        None,
        y,
    )
}

pub(super) fn broadcast(device: &GpuDevice, s: &Tensor, shape: &[usize]) -> Result<Tensor> {
    s.expect("broadcast", "s", &[1], DType::F32)?;
    let y = device.floats(shape)?;
    launch(
        device,
        "broadcast",
        (&vectors::BROADCAST, None),
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
