//! Element-wise kernels: one pass over fixed chunks.

use super::parallel::{CHUNK, for_chunks};
use super::{CpuDevice, read_f32, write_f32};
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
    shapes::floats(operation, "x", x)?;
    let mut y = device.take(x.len());
    let values = read_f32(operation, "x", x)?;
    for_chunks(&mut y, CHUNK, |i, part| {
        let start = i * CHUNK;
        let values = &values[start..start + part.len()];
        part.iter_mut().zip(values).for_each(|(y, &x)| *y = f(x));
    });
    Ok(device.floats(x.shape(), y))
}

/// `y = f(a, b)`
fn zip(
    device: &CpuDevice,
    operation: &'static str,
    (a_name, a): (&str, &Tensor),
    (b_name, b): (&str, &Tensor),
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> Result<Tensor> {
    shapes::floats(operation, a_name, a)?;
    shapes::same(operation, (a_name, a), (b_name, b))?;
    let mut y = device.take(a.len());
    let left = read_f32(operation, a_name, a)?;
    let right = read_f32(operation, b_name, b)?;
    for_chunks(&mut y, CHUNK, |i, part| {
        let range = i * CHUNK..i * CHUNK + part.len();
        let pairs = left[range.clone()].iter().zip(&right[range]);
        part.iter_mut()
            .zip(pairs)
            .for_each(|(y, (&a, &b))| *y = f(a, b));
    });
    Ok(device.floats(a.shape(), y))
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

pub(super) fn scale(device: &CpuDevice, factor: f32, x: &Tensor) -> Result<Tensor> {
    map(device, "scale", x, |x| factor * x)
}

pub(super) fn scale_by(device: &CpuDevice, s: &Tensor, x: &Tensor) -> Result<Tensor> {
    s.expect("scale_by", "s", &[1], DType::F32)?;
    let s = read_f32("scale_by", "s", s)?[0];
    map(device, "scale_by", x, |x| x * s)
}

pub(super) fn axpy(_: &CpuDevice, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
    shapes::floats("axpy", "x", x)?;
    shapes::same("axpy", ("x", x), ("y", y))?;
    shapes::distinct("axpy", ("x", x), ("y", y))?;
    let x = read_f32("axpy", "x", x)?;
    let mut y = write_f32("axpy", "y", y)?;
    for_chunks(&mut y, CHUNK, |i, part| {
        let x = &x[i * CHUNK..i * CHUNK + part.len()];
        part.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
    });
    Ok(())
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
