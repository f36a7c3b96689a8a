//! Batch norm (Ioffe and Szegedy 2015) over N, H, W of each channel, and the activation that
//! follows.
//!
//! Forward: `y = activation(xhat gamma + beta)` with `xhat = (x - mean) / sqrt(variance + eps)`.
//! Backward, with `m = N H W`:
//!
//! 1. if the activation is a ReLU, `dy` is set to 0 unless `y > 0`; the gradient of the shortcut is
//!    this `dy`
//! 2. `dbeta = sum dy`
//! 3. `dgamma = sum dy xhat`
//! 4. training, where mean and variance depend on `x`:
//!    `dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m)`;
//!    evaluation, where they are constants: `dx = gamma / sqrt(variance + eps) dy`
//!
//! Saves `x`, the statistics, `gamma` and `beta`. `y` is not saved: an operation that needs it in
//! the backward pass recomputes it from `x`. `dx` overwrites `x` if no other tensor shares its
//! memory.
//!
//! `x`, `y`, the shortcut and their gradients are activations, f32 or f16. `gamma`, `beta`, the
//! statistics and their gradients are f32 `[C]`.

pub(crate) mod cases;
pub(crate) mod cpu;
mod gpu;
mod reference;
mod synchronized;
#[cfg(test)]
mod tests;

use crate::autograd::{Recompute, Saved, Var};
use crate::device::{Check, Device, Op, Output, product};
use crate::distributed::Group;
use crate::error::Result;
use crate::ops::elementwise::ReluBackward;
use crate::tensor::{DType, Tensor};

/// Mean and biased variance of each channel of a batch, both `[C]`.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    pub mean: Tensor,
    pub variance: Tensor,
}

impl Output for BatchStatistics {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.mean, &self.variance]
    }
}

/// Whether the statistics depend on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    OfTheBatch,
    Constant,
}

/// The normalisation of each channel: `(x - mean) / sqrt(variance + eps) gamma + beta`.
#[derive(Clone, Debug)]
pub struct ChannelNorm {
    pub statistics: BatchStatistics,
    /// `[C]`
    pub gamma: Tensor,
    /// `[C]`
    pub beta: Tensor,
    pub eps: f32,
}

/// The activation after a batch norm, applied in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Activation<T> {
    Identity,
    /// `max(y, 0)`; NaN stays NaN
    Relu,
    /// `max(y + shortcut, 0)`, the end of a residual block. The shortcut has the shape of `y`.
    AddRelu(T),
}

impl<T> Activation<T> {
    /// Borrows the shortcut.
    pub fn as_ref(&self) -> Activation<&T> {
        match self {
            Activation::Identity => Activation::Identity,
            Activation::Relu => Activation::Relu,
            Activation::AddRelu(shortcut) => Activation::AddRelu(shortcut),
        }
    }

    /// Applies `f` to the shortcut.
    pub fn map<S>(self, f: impl FnOnce(T) -> S) -> Activation<S> {
        match self {
            Activation::Identity => Activation::Identity,
            Activation::Relu => Activation::Relu,
            Activation::AddRelu(shortcut) => Activation::AddRelu(f(shortcut)),
        }
    }

    /// The shortcut, if there is one.
    pub fn shortcut(self) -> Option<T> {
        match self {
            Activation::AddRelu(shortcut) => Some(shortcut),
            _ => None,
        }
    }

    /// FLOPs per element of the norm and the activation.
    pub(crate) fn flops(&self) -> u64 {
        match self {
            Activation::Identity => 3,
            Activation::Relu => 4,
            Activation::AddRelu(_) => 5,
        }
    }
}

/// Returns the sizes of the activations `x`. Fails if `x` has no elements.
fn check_input(check: &mut Check<'_>, name: &str, x: &Tensor) -> Result<[usize; 4]> {
    let sizes = check.nchw(name, x)?;
    if x.is_empty() {
        return Err(check.error(format!(
            "{name} has shape {sizes:?}, and a mean of no elements is not defined; use 1 or more"
        )));
    }
    Ok(sizes)
}

/// Fails unless statistics, scale and shift are `[C]`.
pub(crate) fn check_channels(check: &mut Check<'_>, c: usize, norm: &ChannelNorm) -> Result<()> {
    let BatchStatistics { mean, variance } = &norm.statistics;
    check.tensor("mean", mean, &[c], DType::F32)?;
    check.tensor("variance", variance, &[c], DType::F32)?;
    check.tensor("gamma", &norm.gamma, &[c], DType::F32)?;
    check.tensor("beta", &norm.beta, &[c], DType::F32)
}

/// Computes mean and biased variance of each channel of `x [N, C, H, W]`.
pub struct BatchNormStatistics<'a> {
    pub x: &'a Tensor,
}

impl Op for BatchNormStatistics<'_> {
    const NAME: &'static str = "batch_norm_statistics";
    type Sizes = [usize; 4];
    type Output = BatchStatistics;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        check_input(check, "x", self.x)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        4 * product(&sizes)
    }
}

/// The forward pass, `y [N, C, H, W]`. NaN stays NaN.
pub struct BatchNorm<'a> {
    pub x: &'a Tensor,
    pub norm: &'a ChannelNorm,
    pub activation: Activation<&'a Tensor>,
}

impl Op for BatchNorm<'_> {
    const NAME: &'static str = "batch_norm";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_input(check, "x", self.x)?;
        check_channels(check, sizes[1], self.norm)?;
        if let Some(shortcut) = self.activation.shortcut() {
            check.same(("x", self.x), ("shortcut", shortcut))?;
        }
        Ok(sizes)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        self.activation.flops() * product(&sizes)
    }
}

/// The gradients of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormGradients {
    /// `[N, C, H, W]`
    pub dx: Tensor,
    /// `[C]`
    pub dgamma: Tensor,
    /// `[C]`
    pub dbeta: Tensor,
}

impl Output for BatchNormGradients {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.dx, &self.dgamma, &self.dbeta]
    }
}

/// The backward pass. `dx` overwrites `x` if no other tensor shares its memory.
pub struct BatchNormBackward<'a> {
    pub dy: &'a Tensor,
    pub x: Tensor,
    pub norm: &'a ChannelNorm,
    /// Whether the activation is [`Activation::Relu`]. If so, `dy` is set to 0 unless
    /// `xhat gamma + beta > 0`, which is recomputed from `x`.
    pub is_rectified: bool,
    pub statistics: Statistics,
}

impl Op for BatchNormBackward<'_> {
    const NAME: &'static str = "batch_norm_backward";
    type Sizes = [usize; 4];
    type Output = BatchNormGradients;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_input(check, "x", &self.x)?;
        check_channels(check, sizes[1], self.norm)?;
        check.same(("x", &self.x), ("dy", self.dy))?;
        Ok(sizes)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        let per_element = match self.statistics {
            Statistics::OfTheBatch => 9,
            Statistics::Constant => 6,
        };
        per_element * product(&sizes)
    }

    fn label(&self, _: [usize; 4]) -> Option<String> {
        self.x.is_unshared().then(|| "in place".to_string())
    }
}

/// The gradient of the input alone, for constant statistics:
/// `dx = dy gamma / sqrt(variance + eps)`. If `y`, the result of a ReLU, is given, `dx` is 0 unless
/// `y > 0`.
pub struct BatchNormDx<'a> {
    pub dy: &'a Tensor,
    pub norm: &'a ChannelNorm,
    pub y: Option<&'a Tensor>,
}

impl Op for BatchNormDx<'_> {
    const NAME: &'static str = "batch_norm_dx";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_input(check, "dy", self.dy)?;
        check_channels(check, sizes[1], self.norm)?;
        if let Some(y) = self.y {
            check.same(("dy", self.dy), ("y", y))?;
        }
        Ok(sizes)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        product(&sizes)
    }
}

/// `running = (1 - momentum) running + momentum batch`, in place, unless the gate (u32 `[1]`) is
/// set. The variance of the batch is first made unbiased by `count / (count - 1)`, as in torch.
pub struct UpdateRunningStatistics<'a> {
    pub running: &'a BatchStatistics,
    pub batch: &'a BatchStatistics,
    /// Elements per channel of the batch: N H W.
    pub count: usize,
    pub momentum: f32,
    pub gate: Option<&'a Tensor>,
}

impl Op for UpdateRunningStatistics<'_> {
    const NAME: &'static str = "update_running_statistics";
    /// The number of channels.
    type Sizes = usize;
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        let (running, batch) = (self.running, self.batch);
        let mean = ("running mean", &running.mean);
        let variance = ("running variance", &running.variance);
        check.f32(mean.0, mean.1)?;
        check.same(mean, variance)?;
        check.same(mean, ("batch mean", &batch.mean))?;
        check.same(mean, ("batch variance", &batch.variance))?;
        check.distinct(mean, variance)?;
        for written in [mean, variance] {
            check.distinct(written, ("batch mean", &batch.mean))?;
            check.distinct(written, ("batch variance", &batch.variance))?;
        }
        if let Some(gate) = self.gate {
            check.tensor("gate", gate, &[1], DType::U32)?;
        }
        if self.count < 2 {
            return Err(check.error(format!(
                "the batch has {} element per channel; the unbiased variance needs 2 or more: use a larger batch",
                self.count
            )));
        }
        check.changes(&running.mean);
        check.changes(&running.variance);
        Ok(running.mean.len())
    }

    fn flops(&self, channels: usize) -> u64 {
        7 * channels as u64
    }
}

/// Scale `gamma [C]`, shift `beta [C]`, and `eps`, which is added to the variance before the square
/// root.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    pub gamma: &'a Var,
    pub beta: &'a Var,
    pub eps: f32,
}

impl Var {
    /// Normalises `x [N, C, H, W]` by its own statistics, then applies the activation. Returns the
    /// result and the statistics. If the tape is
    /// [synchronised](crate::autograd::PassOptions::synchronized), the statistics are those of `x`
    /// on all ranks.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match.
    pub fn batch_norm(
        &self,
        affine: Affine<'_>,
        activation: Activation<&Var>,
    ) -> Result<(Var, BatchStatistics)> {
        let x = self.tensor();
        let mut statistics = self.device().run(BatchNormStatistics { x })?;
        let group = self.tape().and_then(|tape| tape.options().synchronized);
        if let Some(group) = group {
            statistics = synchronized::statistics(group, &statistics)?;
        }
        let of_batch = (&statistics, Statistics::OfTheBatch, group);
        let y = self.normalize_channels(affine, of_batch, activation)?;
        Ok((y, statistics))
    }

    /// Normalises by constant statistics, then applies the activation.
    ///
    /// # Errors
    /// As [`Var::batch_norm`].
    pub fn batch_norm_evaluation(
        &self,
        statistics: &BatchStatistics,
        affine: Affine<'_>,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        let constant = (statistics, Statistics::Constant, None);
        self.normalize_channels(affine, constant, activation)
    }

    fn normalize_channels(
        &self,
        Affine { gamma, beta, eps }: Affine<'_>,
        (batch, statistics, group): (&BatchStatistics, Statistics, Option<Group>),
        activation: Activation<&Var>,
    ) -> Result<Var> {
        let norm = ChannelNorm {
            statistics: batch.clone(),
            gamma: gamma.tensor().clone(),
            beta: beta.tensor().clone(),
            eps,
        };
        let y = self.device().run(BatchNorm {
            x: self.tensor(),
            norm: &norm,
            activation: activation.map(Var::tensor),
        })?;
        let mut inputs = vec![("x", self), ("gamma", gamma), ("beta", beta)];
        inputs.extend(activation.shortcut().map(|shortcut| ("shortcut", shortcut)));
        let needed: Vec<bool> = inputs.iter().map(|(_, input)| input.is_tracked()).collect();
        if !needed.contains(&true) {
            return Var::record_some(BatchNorm::NAME, y, &inputs, |_, _| Ok(Vec::new()));
        }
        let saved_x = self.saved();
        let recompute = recompute(saved_x.clone(), norm.clone(), activation.map(Var::saved));
        // With a shortcut, the mask of the ReLU needs y, since x alone does not determine its sign.
        let y_of_sum = activation
            .shortcut()
            .map(|_| Saved::Recompute(recompute.clone()));
        let is_rectified = matches!(activation, Activation::Relu);
        let y = Var::record_some(BatchNorm::NAME, y, &inputs, move |device, dy| {
            let is_sum = y_of_sum.is_some();
            // Frees y, one of the largest tensors of a step, before dx is allocated.
            let dy = match y_of_sum {
                Some(y) => {
                    let y = &y.into_tensor(device)?;
                    device.run(ReluBackward { dy, y })?
                }
                None => dy,
            };
            // This is the last use of x unless the caller holds it, because the recomputation of y,
            // which also holds x, has been freed.
            let x = saved_x.into_tensor(device)?;
            let backward = |x, statistics| {
                device.run(BatchNormBackward {
                    dy: &dy,
                    x,
                    norm: &norm,
                    is_rectified,
                    statistics,
                })
            };
            let BatchNormGradients { dx, dgamma, dbeta } = match group {
                None => backward(x, statistics)?,
                Some(group) => {
                    let constant = backward(x.clone(), Statistics::Constant)?;
                    synchronized::gradients(group, constant, &x, &norm)?
                }
            };
            let gradients = [dx, dgamma, dbeta].into_iter().chain(is_sum.then_some(dy));
            Ok(gradients
                .zip(needed)
                .map(|(gradient, needed)| needed.then_some(gradient))
                .collect())
        })?;
        Ok(y.recomputed_by(recompute))
    }
}

/// The recomputation of `y` from `x` and the shortcut.
fn recompute(x: Saved, norm: ChannelNorm, activation: Activation<Saved>) -> std::rc::Rc<Recompute> {
    let before = activation.as_ref().shortcut().cloned();
    Recompute::new(before.as_ref(), move |device: &Device| {
        let shortcut = activation.as_ref().shortcut();
        let shortcut = shortcut.map(|s| s.intermediate(device)).transpose()?;
        let activation = match (&activation, &shortcut) {
            (_, Some(shortcut)) => Activation::AddRelu(shortcut),
            (Activation::Relu, None) => Activation::Relu,
            _ => Activation::Identity,
        };
        device.run(BatchNorm {
            x: &x.tensor(device)?,
            norm: &norm,
            activation,
        })
    })
}
