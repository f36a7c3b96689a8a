//! Batch norm (Ioffe and Szegedy 2015) and what follows it: `y = activation(xhat gamma + beta)` with
//! `xhat = (x - mean) / sqrt(variance + eps)`, for each channel. Saves x, the statistics, gamma and beta; y is not kept
//! but computed again where an operation asks for it on the way back. Backward, with m = N H W:
//!
//! 1. where y was rectified, `dy` counts only where `y > 0`; it is the shortcut's gradient too
//! 2. `dbeta = sum dy`
//! 3. `dgamma = sum dy xhat`
//! 4. training, where mean and variance depend on x:
//!    `dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m)`;
//!    evaluation, where they are constants: `dx = gamma / sqrt(variance + eps) dy`
//!
//! In training dx is written over x, where nothing else holds it any more.

use super::saved::{Again, Saved};
use super::{Tape, Var};
use crate::device::Device;
use crate::device::kernels::{
    Activation, BatchNormGradients, BatchStatistics, ChannelNorm, Statistics,
};
use crate::error::Result;
use crate::tensor::Tensor;

/// Scale, shift and the number that is added to a variance before its root; `gamma` and `beta` are `[C]`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    pub gamma: &'a Var,
    pub beta: &'a Var,
    pub eps: f32,
}

impl Affine<'_> {
    fn norm(&self, statistics: &BatchStatistics) -> ChannelNorm {
        ChannelNorm {
            statistics: statistics.clone(),
            gamma: self.gamma.tensor().clone(),
            beta: self.beta.tensor().clone(),
            eps: self.eps,
        }
    }
}

/// Batch norm with the statistics of `x [N, C, H, W]` itself, which are returned too.
///
/// # Errors
/// `Error::Shape` where these do not fit.
pub fn batch_norm_training(
    tape: &Tape,
    x: &Var,
    affine: Affine<'_>,
    activation: Activation<&Var>,
) -> Result<(Var, BatchStatistics)> {
    let statistics = tape.device().batch_norm_statistics(x.tensor())?;
    let norm = affine.norm(&statistics);
    let y = normalized(tape, x, (affine, norm, Statistics::OfTheBatch), activation)?;
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
    affine: Affine<'_>,
    activation: Activation<&Var>,
) -> Result<Var> {
    let norm = affine.norm(statistics);
    normalized(tape, x, (affine, norm, Statistics::Constant), activation)
}

fn normalized(
    tape: &Tape,
    x: &Var,
    (affine, norm, statistics): (Affine<'_>, ChannelNorm, Statistics),
    activation: Activation<&Var>,
) -> Result<Var> {
    let y = tape
        .device()
        .batch_norm(x.tensor(), &norm, activation.map(Var::tensor))?;
    let mut inputs = vec![("x", x), ("gamma", affine.gamma), ("beta", affine.beta)];
    inputs.extend(activation.shortcut().map(|shortcut| ("shortcut", shortcut)));
    let needs: Vec<bool> = inputs.iter().map(|(_, input)| input.is_tracked()).collect();
    if !needs.contains(&true) {
        return tape.record("batch_norm", y, &inputs, |_, _| Ok(Vec::new()));
    }
    let saved_x = x.saved();
    let again = {
        let (x, norm) = (saved_x.clone(), norm.clone());
        let activation = activation.map(Var::saved);
        let shortcut = activation.as_ref().shortcut().cloned();
        Again::new(shortcut.as_ref(), move |device| {
            let shortcut = activation.as_ref().shortcut();
            let shortcut = shortcut.map(|s| s.tensor_between(device)).transpose()?;
            let activation = match (&activation, &shortcut) {
                (_, Some(shortcut)) => Activation::AddRelu(shortcut),
                (Activation::Relu, None) => Activation::Relu,
                _ => Activation::Identity,
            };
            device.batch_norm(&x.tensor(device)?, &norm, activation)
        })
    };
    // The sum with a shortcut cannot be told from x alone.
    let y_of_sum = activation.shortcut().map(|_| Saved::Again(again.clone()));
    let rectified = matches!(activation, Activation::Relu);
    let backward = move |device: &Device, dy: Tensor| {
        let is_sum = y_of_sum.is_some();
        // Both y and the gradient of the sum's result, the largest tensors of a step, end here.
        let dy = match y_of_sum {
            Some(y) => {
                let y = y.into_tensor(device)?;
                match dy.is_unshared() {
                    true => device.relu_backward_in_place(&dy, &y).map(|()| dy)?,
                    false => device.relu_backward(&dy, &y)?,
                }
            }
            None => dy,
        };
        // y and what computes it again are gone: where x was an operation's result, this one is the last that needs it.
        let x = saved_x.into_tensor(device)?;
        let BatchNormGradients { dx, dgamma, dbeta } = match statistics {
            Statistics::OfTheBatch => match x.is_unshared() {
                true => device.batch_norm_training_backward_in_place(&dy, &x, &norm, rectified)?,
                false => device.batch_norm_training_backward(&dy, &x, &norm, rectified)?,
            },
            Statistics::Constant => {
                device.batch_norm_evaluation_backward(&dy, &x, &norm, rectified)?
            }
        };
        let dshortcut = is_sum.then_some(dy);
        let gradients = [dx, dgamma, dbeta].into_iter().chain(dshortcut);
        let gradients = gradients.zip(needs);
        Ok(gradients
            .map(|(gradient, needed)| needed.then_some(gradient))
            .collect())
    };
    let var = tape.record_owning("batch_norm", y, &inputs, backward)?;
    Ok(var.computed_again_by(again))
}
