//! Rows of length 1: a row is one task, its sums in float64.

use super::parallel;
use super::{CpuDevice, read_f32};
use crate::device::kernels::Normalized;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

pub(super) fn l2_normalize(device: &CpuDevice, x: &Tensor, eps: f32) -> Result<Normalized> {
    let [n, d] = x.matrix("l2_normalize", "x")?;
    let values = read_f32("l2_normalize", "x", x)?;
    let mut norm = device.take(n);
    parallel::for_chunks(&mut norm, 1, |row, norm| {
        let row = &values[row * d..(row + 1) * d];
        let square: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        norm[0] = (square.sqrt() as f32).max(eps);
    });
    let mut y = device.take(n * d);
    parallel::for_chunks(&mut y, d, |row, y| {
        let x = &values[row * d..(row + 1) * d];
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x / norm[row]);
    });
    Ok(Normalized {
        y: device.floats(&[n, d], y),
        norm: device.floats(&[n], norm),
    })
}

pub(super) fn l2_normalize_backward(
    device: &CpuDevice,
    dy: &Tensor,
    forward: &Normalized,
    eps: f32,
) -> Result<Tensor> {
    let op = "l2_normalize_backward";
    let [n, d] = forward.y.matrix(op, "y")?;
    shapes::same(op, ("y", &forward.y), ("dy", dy))?;
    forward.norm.expect(op, "norm", &[n], DType::F32)?;
    let (dy, y) = (read_f32(op, "dy", dy)?, read_f32(op, "y", &forward.y)?);
    let norm = read_f32(op, "norm", &forward.norm)?;
    let mut dx = device.take(n * d);
    parallel::for_chunks(&mut dx, d, |row, dx| {
        let (dy, y) = (&dy[row * d..][..d], &y[row * d..][..d]);
        let along: f64 = dy
            .iter()
            .zip(y)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum();
        // A norm of eps marks a row that was divided by the constant eps.
        let along = if norm[row] > eps { along as f32 } else { 0.0 };
        for (dx, (&dy, &y)) in dx.iter_mut().zip(dy.iter().zip(y)) {
            *dx = (dy - y * along) / norm[row];
        }
    });
    Ok(device.floats(&[n, d], dx))
}
