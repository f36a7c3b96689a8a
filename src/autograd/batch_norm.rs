//! Batch norm (Ioffe and Szegedy 2015): `y = xhat gamma + beta` with `xhat = (x - mean) / sqrt(variance + eps)`, for each
//! channel. Saves x, the statistics and gamma. Backward, with m = N H W:
//!
//! 1. `dbeta = sum dy`
//! 2. `dgamma = sum dy xhat`
//! 3. training, where mean and variance depend on x: `dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m)`;
//!    evaluation, where they are constants: `dx = gamma / sqrt(variance + eps) dy`

use super::{Tape, Var};
use crate::device::Device;
use crate::device::kernels::{BatchNormGradients, BatchStatistics};
use crate::error::Result;
use crate::tensor::Tensor;

/// Batch norm with the statistics of `x [N, C, H, W]` itself, which are returned too; `gamma` and `beta` are `[C]`.
///
/// # Errors
/// `Error::Shape` where these do not fit.
pub fn batch_norm_training(
    tape: &Tape,
    x: &Var,
    gamma: &Var,
    beta: &Var,
    eps: f32,
) -> Result<(Var, BatchStatistics)> {
    let statistics = tape.device().batch_norm_statistics(x.tensor())?;
    let backward = move |device: &Device, dy: &Tensor, saved: Saved| {
        device.batch_norm_training_backward(dy, &saved.x, &saved.statistics, &saved.gamma, eps)
    };
    let y = normalized(tape, x, &statistics, gamma, beta, eps, backward)?;
    Ok((y, statistics))
}

/// Batch norm with given statistics, through which no gradient flows.
///
/// # Errors
/// As [`batch_norm_training`].
pub fn batch_norm_evaluation(
    tape: &Tape,
    x: &Var,
    statistics: &BatchStatistics,
    gamma: &Var,
    beta: &Var,
    eps: f32,
) -> Result<Var> {
    let backward = move |device: &Device, dy: &Tensor, saved: Saved| {
        device.batch_norm_evaluation_backward(dy, &saved.x, &saved.statistics, &saved.gamma, eps)
    };
    normalized(tape, x, statistics, gamma, beta, eps, backward)
}

/// What goes into a batch norm and is needed on the way back.
struct Saved {
    x: Tensor,
    statistics: BatchStatistics,
    gamma: Tensor,
}

fn normalized(
    tape: &Tape,
    x: &Var,
    statistics: &BatchStatistics,
    gamma: &Var,
    beta: &Var,
    eps: f32,
    backward: impl FnOnce(&Device, &Tensor, Saved) -> Result<BatchNormGradients> + 'static,
) -> Result<Var> {
    let y = tape
        .device()
        .batch_norm(x.tensor(), statistics, gamma.tensor(), beta.tensor(), eps)?;
    let saved = Saved {
        x: x.tensor().clone(),
        statistics: statistics.clone(),
        gamma: gamma.tensor().clone(),
    };
    let needs = [x, gamma, beta].map(Var::is_tracked);
    let inputs = [("x", x), ("gamma", gamma), ("beta", beta)];
    tape.record("batch_norm", y, &inputs, move |device, dy| {
        let BatchNormGradients { dx, dgamma, dbeta } = backward(device, dy, saved)?;
        let gradients = [dx, dgamma, dbeta].into_iter().zip(needs);
        Ok(gradients
            .map(|(gradient, needed)| needed.then_some(gradient))
            .collect())
    })
}
