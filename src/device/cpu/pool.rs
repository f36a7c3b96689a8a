//! Pooling: a plane, or some of them, is one task.

use super::activations::read_activations;
use super::parallel;
use super::{CpuDevice, read_f32, read_u32};
use crate::device::kernels::MaxPool;
use crate::device::shapes::{self, Pool2d};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The maximum of the window at output (i, j) and its place in the plane. The first of equal ones; a NaN wins.
fn maximum(plane: &[f32], [h, w]: [usize; 2], [i, j]: [usize; 2], pool: Pool2d) -> (f32, u32) {
    let rows = (i * pool.stride).saturating_sub(pool.padding)
        ..(i * pool.stride + pool.kernel - pool.padding).min(h);
    let columns = (j * pool.stride).saturating_sub(pool.padding)
        ..(j * pool.stride + pool.kernel - pool.padding).min(w);
    let mut best = (f32::NEG_INFINITY, (rows.start * w + columns.start) as u32);
    for y in rows {
        for x in columns.clone() {
            let value = plane[y * w + x];
            if value > best.0 || value.is_nan() {
                best = (value, (y * w + x) as u32);
            }
        }
    }
    best
}

pub(super) fn max_pool2d(device: &CpuDevice, x: &Tensor, pool: Pool2d) -> Result<MaxPool> {
    let [n, c, h, w] = x.nchw("max_pool2d", "x")?;
    let shape = shapes::pool2d("max_pool2d", [n, c, h, w], pool)?;
    let [_, _, oh, ow] = shape;
    let stored = read_activations("max_pool2d", "x", x)?;
    let planes = parallel::map(n * c, |plane| {
        stored
            .values()
            .with(plane * h * w..(plane + 1) * h * w, |values| {
                (0..oh * ow)
                    .map(|at| maximum(values, [h, w], [at / ow, at % ow], pool))
                    .collect::<Vec<_>>()
            })
    });
    let mut y = device.take_activations(n * c * oh * ow, x.dtype());
    y.for_chunks(oh * ow, |plane, y| {
        let found = y.iter_mut().zip(&planes[plane]);
        found.for_each(|(y, &(value, _))| *y = value);
    });
    let found = planes.iter().flatten();
    let argmax = found.map(|&(_, place)| place).collect();
    Ok(MaxPool {
        y: device.activations(&shape, y),
        argmax: device.integers(&shape, argmax),
    })
}

pub(super) fn max_pool2d_backward(
    device: &CpuDevice,
    dy: &Tensor,
    argmax: &Tensor,
    x_shape: [usize; 4],
    pool: Pool2d,
) -> Result<Tensor> {
    let op = "max_pool2d_backward";
    let [n, c, h, w] = x_shape;
    let shape = shapes::pool2d(op, x_shape, pool)?;
    dy.expect(op, "dy", &shape, dy.dtype())?;
    argmax.expect(op, "argmax", &shape, DType::U32)?;
    let pixels = shape[2] * shape[3];
    let mut dx = device.take_activations(n * c * h * w, dy.dtype());
    let (stored, argmax) = (
        read_activations(op, "dy", dy)?,
        read_u32(op, "argmax", argmax)?,
    );
    dx.for_chunks(h * w, |plane, dx| {
        dx.fill(0.0);
        let range = plane * pixels..(plane + 1) * pixels;
        stored.values().with(range.clone(), |dy| {
            for (&place, &dy) in argmax[range].iter().zip(dy) {
                // A place outside the plane comes from an argmax that this crate did not make; it has no pixel.
                if let Some(dx) = dx.get_mut(place as usize) {
                    *dx += dy;
                }
            }
        });
    });
    Ok(device.activations(&x_shape, dx))
}

/// Planes of `pixels` pixels that global average pooling and its gradient take at a time.
fn planes_per_task(pixels: usize) -> usize {
    (parallel::CHUNK / pixels.max(1)).max(1)
}

pub(super) fn global_average_pool(device: &CpuDevice, x: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = shapes::batch_norm_input("global_average_pool", "x", x)?;
    let stored = read_activations("global_average_pool", "x", x)?;
    let mut y = device.take(n * c);
    let planes = planes_per_task(h * w);
    parallel::for_chunks(&mut y, planes, |task, y| {
        let start = task * planes * h * w;
        stored.values().with(start..start + y.len() * h * w, |x| {
            for (y, plane) in y.iter_mut().zip(x.chunks(h * w)) {
                *y = (super::reduce::sum_f64(plane) / (h * w) as f64) as f32;
            }
        });
    });
    Ok(device.floats(&[n, c], y))
}

pub(super) fn global_average_pool_backward(
    device: &CpuDevice,
    dy: &Tensor,
    x_shape: [usize; 4],
    x_dtype: DType,
) -> Result<Tensor> {
    let op = "global_average_pool_backward";
    shapes::activation_type(op, "x", x_dtype)?;
    let [n, c, h, w] = x_shape;
    dy.expect(op, "dy", &[n, c], DType::F32)?;
    let mut dx = device.take_activations(shapes::check_elements(op, &x_shape)?, x_dtype);
    let dy = read_f32(op, "dy", dy)?;
    let (plane, planes) = ((h * w).max(1), planes_per_task(h * w));
    dx.for_chunks(planes * plane, |task, dx| {
        for (dx, dy) in dx.chunks_mut(plane).zip(&dy[task * planes..]) {
            dx.fill(dy / plane as f32);
        }
    });
    Ok(device.activations(&x_shape, dx))
}
