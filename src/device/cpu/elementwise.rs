//! Element-wise kernels: one pass over fixed chunks.

use super::activations::{change_activations, read_activations};
use super::parallel::CHUNK;
use super::{CpuDevice, read_f32};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// `y = f(x)`
fn map(
    device: &CpuDevice,
    operation: &'static str,
    x: &Tensor,
    f: impl Fn(f32) -> f32 + Sync + Send,
) -> Result<Tensor> {
    shapes::activations(operation, "x", x)?;
    let mut y = device.take_activations(x.len(), x.dtype());
    let stored = read_activations(operation, "x", x)?;
    let values = stored.values();
    y.for_chunks(CHUNK, |i, part| {
        values.with(range(i, part), |values| {
            part.iter_mut().zip(values).for_each(|(y, &x)| *y = f(x));
        });
    });
    Ok(device.activations(x.shape(), y))
}

/// The elements of chunk `i`.
fn range<T>(i: usize, part: &[T]) -> std::ops::Range<usize> {
    i * CHUNK..i * CHUNK + part.len()
}

/// `y = f(a, b)`
fn zip(
    device: &CpuDevice,
    operation: &'static str,
    (a_name, a): (&str, &Tensor),
    (b_name, b): (&str, &Tensor),
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> Result<Tensor> {
    shapes::activations(operation, a_name, a)?;
    shapes::same(operation, (a_name, a), (b_name, b))?;
    let mut y = device.take_activations(a.len(), a.dtype());
    let left = read_activations(operation, a_name, a)?;
    let right = read_activations(operation, b_name, b)?;
    let (left, right) = (left.values(), right.values());
    y.for_chunks(CHUNK, |i, part| {
        left.with(range(i, part), |left| {
            right.with(range(i, part), |right| {
                let pairs = left.iter().zip(right);
                part.iter_mut()
                    .zip(pairs)
                    .for_each(|(y, (&a, &b))| *y = f(a, b));
            });
        });
    });
    Ok(device.activations(a.shape(), y))
}

/// max(x, 0) that keeps NaN.
fn rectify(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

pub(super) fn add(device: &CpuDevice, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    zip(device, "add", ("a", a), ("b", b), |a, b| a + b)
}

pub(super) fn relu(device: &CpuDevice, x: &Tensor) -> Result<Tensor> {
    map(device, "relu", x, rectify)
}

pub(super) fn relu_backward(device: &CpuDevice, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    zip(device, "relu_backward", ("dy", dy), ("y", y), |dy, y| {
        if y > 0.0 { dy } else { 0.0 }
    })
}

pub(super) fn relu_backward_in_place(_: &CpuDevice, dy: &Tensor, y: &Tensor) -> Result<()> {
    let operation = "relu_backward_in_place";
    shapes::activations(operation, "dy", dy)?;
    shapes::same(operation, ("dy", dy), ("y", y))?;
    shapes::distinct(operation, ("dy", dy), ("y", y))?;
    let stored = read_activations(operation, "y", y)?;
    let y = stored.values();
    change_activations(operation, "dy", dy, CHUNK, |i, part| {
        y.with(range(i, part), |y| {
            let each = part.iter_mut().zip(y);
            each.for_each(|(dy, &y)| *dy = if y > 0.0 { *dy } else { 0.0 });
        });
    })
}

pub(super) fn scale(device: &CpuDevice, factor: f32, x: &Tensor) -> Result<Tensor> {
    shapes::floats("scale", "x", x)?;
    map(device, "scale", x, |x| factor * x)
}

pub(super) fn axpy(_: &CpuDevice, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
    shapes::activations("axpy", "x", x)?;
    shapes::same("axpy", ("x", x), ("y", y))?;
    shapes::distinct("axpy", ("x", x), ("y", y))?;
    let stored = read_activations("axpy", "x", x)?;
    let x = stored.values();
    change_activations("axpy", "y", y, CHUNK, |i, part| {
        x.with(range(i, part), |x| {
            part.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
        });
    })
}

pub(super) fn broadcast(device: &CpuDevice, s: &Tensor, shape: &[usize]) -> Result<Tensor> {
    s.expect("broadcast", "s", &[1], DType::F32)?;
    let mut y = device.take(shapes::check_elements("broadcast", shape)?);
    y.fill(read_f32("broadcast", "s", s)?[0]);
    Ok(device.floats(shape, y))
}

pub(super) fn concat(device: &CpuDevice, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let rows = shapes::concat(a, b)?;
    let mut shape = a.shape().to_vec();
    shape[0] = rows;
    let mut y = device.take(a.len() + b.len());
    let (first, second) = y.split_at_mut(a.len());
    first.copy_from_slice(&read_f32("concat", "a", a)?);
    second.copy_from_slice(&read_f32("concat", "b", b)?);
    Ok(device.floats(&shape, y))
}

pub(super) fn slice(device: &CpuDevice, x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
    let row = shapes::slice(x, start, count)?;
    let mut shape = x.shape().to_vec();
    shape[0] = count;
    let mut y = device.take(count * row);
    y.copy_from_slice(&read_f32("slice", "x", x)?[start * row..(start + count) * row]);
    Ok(device.floats(&shape, y))
}
