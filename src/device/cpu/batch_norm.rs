//! Batch norm: a channel is one task. Sums are taken over its planes in order, in float64 lanes; the variance in a
//! second pass about the mean.

use super::parallel;
use super::{CpuDevice, read_f32, read_u32, write_f32};
use crate::device::kernels::{BatchNormGradients, BatchStatistics, RunningUpdate};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

/// The sum of `f(a, b)` over two planes of equal length, in eight lanes.
fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let whole = a.len() / 8 * 8;
    for (a, b) in a[..whole].chunks_exact(8).zip(b[..whole].chunks_exact(8)) {
        for i in 0..8 {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest: f64 = a[whole..]
        .iter()
        .zip(&b[whole..])
        .map(|(&a, &b)| f(a, b))
        .sum();
    lanes.iter().sum::<f64>() + rest
}

/// `1 / sqrt(variance + eps)`
fn inverse_deviation(variance: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(variance) + f64::from(eps)).sqrt()) as f32
}

pub(super) fn batch_norm_statistics(device: &CpuDevice, x: &Tensor) -> Result<BatchStatistics> {
    let [n, c, h, w] = shapes::batch_norm_input("batch_norm_statistics", "x", x)?;
    let (plane, count) = (h * w, (n * h * w) as f64);
    let values = read_f32("batch_norm_statistics", "x", x)?;
    let planes = |channel: usize| {
        let values = &values;
        (0..n).map(move |image| {
            let start = (image * c + channel) * plane;
            &values[start..start + plane]
        })
    };
    let found = parallel::map(c, |channel| {
        let mean = planes(channel).map(super::reduce::sum_f64).sum::<f64>() / count;
        let variance = planes(channel)
            .map(|p| sum_pairs(p, p, |x, _| (f64::from(x) - mean).powi(2)))
            .sum::<f64>()
            / count;
        (mean as f32, variance as f32)
    });
    let (mut mean, mut variance) = (device.take(c), device.take(c));
    for (i, (m, v)) in found.into_iter().enumerate() {
        (mean[i], variance[i]) = (m, v);
    }
    Ok(BatchStatistics {
        mean: device.floats(&[c], mean),
        variance: device.floats(&[c], variance),
    })
}

pub(super) fn batch_norm(
    device: &CpuDevice,
    x: &Tensor,
    statistics: &BatchStatistics,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let op = "batch_norm";
    let [_, c, h, w] = shapes::batch_norm_input(op, "x", x)?;
    shapes::channels(
        op,
        c,
        &[
            ("mean", &statistics.mean),
            ("variance", &statistics.variance),
        ],
    )?;
    shapes::channels(op, c, &[("gamma", gamma), ("beta", beta)])?;
    let mean = read_f32(op, "mean", &statistics.mean)?;
    let variance = read_f32(op, "variance", &statistics.variance)?;
    let (gamma, beta) = (read_f32(op, "gamma", gamma)?, read_f32(op, "beta", beta)?);
    let values = read_f32(op, "x", x)?;
    let mut y = device.take(x.len());
    let plane = h * w;
    parallel::for_chunks(&mut y, c * plane, |image, part| {
        let values = &values[image * c * plane..][..part.len()];
        for (channel, (y, x)) in part.chunks_mut(plane).zip(values.chunks(plane)).enumerate() {
            let factor = inverse_deviation(variance[channel], eps) * gamma[channel];
            let (mean, beta) = (mean[channel], beta[channel]);
            y.iter_mut()
                .zip(x)
                .for_each(|(y, &x)| *y = (x - mean) * factor + beta);
        }
    });
    Ok(device.floats(x.shape(), y))
}

/// Whether the statistics depend on the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Statistics {
    OfTheBatch,
    Constant,
}

pub(super) fn batch_norm_training_backward(
    device: &CpuDevice,
    dy: &Tensor,
    x: &Tensor,
    statistics: &BatchStatistics,
    gamma: &Tensor,
    eps: f32,
) -> Result<BatchNormGradients> {
    backward(
        device,
        dy,
        x,
        statistics,
        gamma,
        eps,
        Statistics::OfTheBatch,
    )
}

pub(super) fn batch_norm_evaluation_backward(
    device: &CpuDevice,
    dy: &Tensor,
    x: &Tensor,
    statistics: &BatchStatistics,
    gamma: &Tensor,
    eps: f32,
) -> Result<BatchNormGradients> {
    backward(device, dy, x, statistics, gamma, eps, Statistics::Constant)
}

fn backward(
    device: &CpuDevice,
    dy: &Tensor,
    x: &Tensor,
    statistics: &BatchStatistics,
    gamma: &Tensor,
    eps: f32,
    kind: Statistics,
) -> Result<BatchNormGradients> {
    let op = "batch_norm_backward";
    let [n, c, h, w] = shapes::batch_norm_input(op, "x", x)?;
    shapes::same(op, ("x", x), ("dy", dy))?;
    shapes::channels(
        op,
        c,
        &[
            ("mean", &statistics.mean),
            ("variance", &statistics.variance),
        ],
    )?;
    shapes::channels(op, c, &[("gamma", gamma)])?;
    let mean = read_f32(op, "mean", &statistics.mean)?;
    let variance = read_f32(op, "variance", &statistics.variance)?;
    let gamma = read_f32(op, "gamma", gamma)?;
    let (values, dy) = (read_f32(op, "x", x)?, read_f32(op, "dy", dy)?);
    let plane = h * w;
    let sums = parallel::map(c, |channel| {
        let deviation = inverse_deviation(variance[channel], eps);
        let (mut sum_dy, mut sum_dy_xhat) = (0.0, 0.0);
        for image in 0..n {
            let start = (image * c + channel) * plane;
            let (dy, x) = (&dy[start..start + plane], &values[start..start + plane]);
            sum_dy += super::reduce::sum_f64(dy);
            sum_dy_xhat += sum_pairs(dy, x, |dy, x| {
                f64::from(dy) * f64::from((x - mean[channel]) * deviation)
            });
        }
        (sum_dy as f32, sum_dy_xhat as f32)
    });
    let count = (n * plane) as f32;
    let mut dx = device.take(x.len());
    parallel::for_chunks(&mut dx, c * plane, |image, part| {
        let start = image * c * plane;
        let (dy, x) = (&dy[start..][..part.len()], &values[start..][..part.len()]);
        let rows = part
            .chunks_mut(plane)
            .zip(dy.chunks(plane).zip(x.chunks(plane)));
        for (channel, (dx, (dy, x))) in rows.enumerate() {
            let deviation = inverse_deviation(variance[channel], eps);
            let factor = gamma[channel] * deviation;
            let mean = mean[channel];
            let (a, b) = match kind {
                Statistics::OfTheBatch => (sums[channel].0 / count, sums[channel].1 / count),
                Statistics::Constant => (0.0, 0.0),
            };
            for (dx, (&dy, &x)) in dx.iter_mut().zip(dy.iter().zip(x)) {
                *dx = factor * (dy - a - (x - mean) * deviation * b);
            }
        }
    });
    let (mut dgamma, mut dbeta) = (device.take(c), device.take(c));
    for (i, (sum_dy, sum_dy_xhat)) in sums.into_iter().enumerate() {
        (dbeta[i], dgamma[i]) = (sum_dy, sum_dy_xhat);
    }
    Ok(BatchNormGradients {
        dx: device.floats(x.shape(), dx),
        dgamma: device.floats(&[c], dgamma),
        dbeta: device.floats(&[c], dbeta),
    })
}

pub(super) fn update_running_statistics(
    _: &CpuDevice,
    running: &BatchStatistics,
    batch: &BatchStatistics,
    update: RunningUpdate,
    gate: Option<&Tensor>,
) -> Result<()> {
    let op = "update_running_statistics";
    shapes::running_update(running, batch, update, gate)?;
    if let Some(gate) = gate
        && read_u32(op, "gate", gate)?[0] != 0
    {
        return Ok(());
    }
    let unbiased = update.count as f32 / (update.count - 1) as f32;
    for (running, batch, factor) in [
        (&running.mean, &batch.mean, 1.0),
        (&running.variance, &batch.variance, unbiased),
    ] {
        let batch = read_f32(op, "batch", batch)?;
        let mut running = write_f32(op, "running", running)?;
        for (running, &batch) in running.iter_mut().zip(batch.iter()) {
            *running = (1.0 - update.momentum) * *running + update.momentum * (factor * batch);
        }
    }
    Ok(())
}
