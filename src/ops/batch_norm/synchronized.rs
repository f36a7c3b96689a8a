//! Batch norm over the images of all ranks, as `torch.nn.SyncBatchNorm`. Every rank has the same
//! number of elements per channel.

use super::{Activation, BatchNorm, BatchNormGradients, BatchStatistics, ChannelNorm};
use crate::distributed::Group;
use crate::error::Result;
use crate::ops::elementwise::Accumulate;
use crate::tensor::Tensor;

/// The statistics of all ranks from those of this one: the mean of the means, and the mean of the
/// variances plus the variance of the means.
///
/// # Errors
/// Those of the exchange.
pub(super) fn statistics(group: Group, own: &BatchStatistics) -> Result<BatchStatistics> {
    let channels = own.mean.len();
    let all = group.gather(&Tensor::all_to_vec([&own.mean, &own.variance])?)?;
    let ranks = || {
        all.chunks_exact(2 * channels)
            .map(|rank| rank.split_at(channels))
    };
    let count = group.size() as f64;
    let of_channel = |c: usize| {
        let mean = ranks().map(|(mean, _)| f64::from(mean[c])).sum::<f64>() / count;
        let squares = ranks().map(|(means, variances)| {
            f64::from(variances[c]) + (f64::from(means[c]) - mean).powi(2)
        });
        (mean as f32, (squares.sum::<f64>() / count) as f32)
    };
    let (mean, variance): (Vec<f32>, Vec<f32>) = (0..channels).map(of_channel).unzip();
    let device = own.mean.device();
    Ok(BatchStatistics {
        mean: Tensor::from_slice(&mean, &[channels], &device)?,
        variance: Tensor::from_slice(&variance, &[channels], &device)?,
    })
}

/// The gradients for statistics of all ranks, from those of this rank for constant statistics. `dx`
/// lacks the terms of mean and variance,
/// `- gamma / sqrt(variance + eps) (dbeta / m + xhat dgamma / m)` with the sums of all ranks, which
/// is a batch norm of `x` with another scale and shift. `dgamma` and `dbeta` remain those of this
/// rank, since gradients of parameters are added over ranks later.
///
/// # Errors
/// Those of the exchange and of the operations.
pub(super) fn gradients(
    group: Group,
    constant: BatchNormGradients,
    x: &Tensor,
    norm: &ChannelNorm,
) -> Result<BatchNormGradients> {
    let BatchNormGradients {
        dx,
        dgamma,
        dbeta,
        dshortcut,
    } = constant;
    let device = &x.device();
    let channels = dgamma.len();
    let scale = [&norm.gamma, &norm.statistics.variance];
    let mut sums = Tensor::all_to_vec::<f32>([&dgamma, &dbeta].into_iter().chain(scale))?;
    let scale = sums.split_off(2 * channels);
    let (gamma, variance) = scale.split_at(channels);
    group.sum(&mut sums)?;
    let count = (x.len() / channels * group.size()) as f64;
    let factor = |(&gamma, &variance): (&f32, &f32)| {
        let deviation = (f64::from(variance) + f64::from(norm.eps)).sqrt();
        -f64::from(gamma) / deviation / count
    };
    let factors: Vec<f64> = gamma.iter().zip(variance).map(factor).collect();
    let scaled = |sums: &[f32]| {
        let values: Vec<f32> = factors
            .iter()
            .zip(sums)
            .map(|(factor, &sum)| (factor * f64::from(sum)) as f32)
            .collect();
        Tensor::from_slice(&values, &[channels], device)
    };
    let terms = device.run(BatchNorm {
        x,
        norm: &ChannelNorm {
            gamma: scaled(&sums[..channels])?,
            beta: scaled(&sums[channels..])?,
            ..norm.clone()
        },
        activation: Activation::Identity,
    })?;
    let dx = device.run(Accumulate { sum: dx, x: &terms })?;
    Ok(BatchNormGradients {
        dx,
        dgamma,
        dbeta,
        dshortcut,
    })
}
