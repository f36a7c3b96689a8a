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

/// The forward pass with the statistics of `x` itself: [`BatchNormStatistics`], then [`BatchNorm`].
/// On a GPU, each workgroup of the second pass adds the partial sums of the first one itself.
pub struct BatchNormTraining<'a> {
    pub x: &'a Tensor,
    /// `[C]`
    pub gamma: &'a Tensor,
    /// `[C]`
    pub beta: &'a Tensor,
    pub eps: f32,
    pub activation: Activation<&'a Tensor>,
}

/// The result of a forward pass, and the statistics of its input.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// `[N, C, H, W]`
    pub y: Tensor,
    pub statistics: BatchStatistics,
}

impl Output for Normalized {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.y, &self.statistics.mean, &self.statistics.variance]
    }
}

impl Op for BatchNormTraining<'_> {
    const NAME: &'static str = "batch_norm_training";
    type Sizes = [usize; 4];
    type Output = Normalized;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_input(check, "x", self.x)?;
        check.tensor("gamma", self.gamma, &[sizes[1]], DType::F32)?;
        check.tensor("beta", self.beta, &[sizes[1]], DType::F32)?;
        if let Some(shortcut) = self.activation.shortcut() {
            check.same(("x", self.x), ("shortcut", shortcut))?;
        }
        Ok(sizes)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        (4 + self.activation.flops()) * product(&sizes)
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
    /// `[N, C, H, W]`, if there is a shortcut.
    pub dshortcut: Option<Tensor>,
}

impl Output for BatchNormGradients {
    fn tensors(&self) -> Vec<&Tensor> {
        let all = [&self.dx, &self.dgamma, &self.dbeta].into_iter();
        all.chain(&self.dshortcut).collect()
    }
}

/// The backward pass. `dx` overwrites `x`, and the gradient of the shortcut overwrites `dy`, if no
/// other tensor shares their memory.
pub struct BatchNormBackward<'a> {
    pub dy: Tensor,
    pub x: Tensor,
    pub norm: &'a ChannelNorm,
    /// The activation of the forward pass, with its result `y` instead of the shortcut, since `x`
    /// alone does not determine where `y > 0`. For [`Activation::Relu`], `y` is recomputed from
    /// `x`.
    pub activation: Activation<&'a Tensor>,
    pub statistics: Statistics,
}

impl Op for BatchNormBackward<'_> {
    const NAME: &'static str = "batch_norm_backward";
    type Sizes = [usize; 4];
    type Output = BatchNormGradients;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_input(check, "x", &self.x)?;
        check_channels(check, sizes[1], self.norm)?;
        check.same(("x", &self.x), ("dy", &self.dy))?;
        if let Some(y) = self.activation.shortcut() {
            check.same(("x", &self.x), ("y", y))?;
        }
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

/// The gradient of the input alone, for constant statistics, as the backward pass of
/// [`Conv2dBatchNorm`](crate::ops::conv2d::Conv2dBatchNorm) uses it:
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

/// `average = (1 - momentum) average + momentum factor value` of each element, in place, unless the
/// gate (u32 `[1]`) is set: [`UpdateRunningStatistics`] of several batch norms whose tensors are
/// next to each other. The factor is 1 for a mean, and `count / (count - 1)` for a variance.
pub struct UpdateAverages<'a> {
    pub averages: &'a Tensor,
    pub values: &'a Tensor,
    pub factors: &'a Tensor,
    pub momentum: f32,
    pub gate: Option<&'a Tensor>,
}

impl Op for UpdateAverages<'_> {
    const NAME: &'static str = "update_averages";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        let averages = ("averages", self.averages);
        check.f32(averages.0, averages.1)?;
        for read in [("values", self.values), ("factors", self.factors)] {
            check.same(averages, read)?;
            check.distinct(averages, read)?;
        }
        if let Some(gate) = self.gate {
            check.tensor("gate", gate, &[1], DType::U32)?;
        }
        check.changes(self.averages);
        Ok(())
    }

    fn flops(&self, (): ()) -> u64 {
        4 * self.averages.len() as u64
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
        self.batch_norm_of(affine, activation, None)
    }

    /// As [`Var::batch_norm`]. The statistics are stored in the slots of `running`, if they have
    /// some.
    pub(crate) fn batch_norm_of(
        &self,
        affine: Affine<'_>,
        activation: Activation<&Var>,
        running: Option<&BatchStatistics>,
    ) -> Result<(Var, BatchStatistics)> {
        let (device, x) = (self.device(), self.tensor());
        let group = self.tape().and_then(|tape| tape.options().synchronized);
        let Normalized { y, statistics } = match group {
            Some(group) => {
                let own = device.run(BatchNormStatistics { x })?;
                let statistics = synchronized::statistics(group, &own)?;
                let y = device.run(BatchNorm {
                    x,
                    norm: &affine.norm(&statistics),
                    activation: activation.map(Var::tensor),
                })?;
                Normalized { y, statistics }
            }
            None => {
                let slot =
                    |of: fn(&BatchStatistics) -> &Tensor| running.and_then(|r| of(r).in_slot());
                let forward = BatchNormTraining {
                    x,
                    gamma: affine.gamma.tensor(),
                    beta: affine.beta.tensor(),
                    eps: affine.eps,
                    activation: activation.map(Var::tensor),
                };
                let slots = vec![None, slot(|r| &r.mean), slot(|r| &r.variance)];
                device.run_into(forward, slots)?
            }
        };
        let of_batch = (&statistics, Statistics::OfTheBatch, group);
        let y = self.record_batch_norm(y, affine, of_batch, activation)?;
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
        let y = self.device().run(BatchNorm {
            x: self.tensor(),
            norm: &affine.norm(statistics),
            activation: activation.map(Var::tensor),
        })?;
        let constant = (statistics, Statistics::Constant, None);
        self.record_batch_norm(y, affine, constant, activation)
    }

    /// Records the result `y` of a batch norm with these statistics.
    fn record_batch_norm(
        &self,
        y: Tensor,
        affine: Affine<'_>,
        (batch, statistics, group): (&BatchStatistics, Statistics, Option<Group>),
        activation: Activation<&Var>,
    ) -> Result<Var> {
        let norm = affine.norm(batch);
        let Affine { gamma, beta, .. } = affine;
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
        let activation = activation.map(|_| ());
        let slots = [gamma, beta].map(Var::gradient_slot);
        let y = Var::record_some(BatchNorm::NAME, y, &inputs, move |device, dy| {
            let y = y_of_sum.map(|y| y.into_tensor(device)).transpose()?;
            // This is the last use of x unless the caller holds it, because the recomputation of y,
            // which also holds x, has been freed.
            let x = saved_x.into_tensor(device)?;
            let activation = match (&activation, &y) {
                (Activation::Relu, _) => Activation::Relu,
                (_, Some(y)) => Activation::AddRelu(y),
                (_, None) => Activation::Identity,
            };
            let [dgamma, dbeta] = slots;
            let slots = vec![None, dgamma, dbeta];
            let backward = |x, statistics| {
                let backward = BatchNormBackward {
                    dy,
                    x,
                    norm: &norm,
                    activation,
                    statistics,
                };
                device.run_into(backward, slots)
            };
            let gradients = match group {
                None => backward(x, statistics)?,
                Some(group) => {
                    let constant = backward(x.clone(), Statistics::Constant)?;
                    synchronized::gradients(group, constant, &x, &norm)?
                }
            };
            let BatchNormGradients {
                dx, dgamma, dbeta, ..
            } = gradients;
            let gradients = [dx, dgamma, dbeta].into_iter().chain(gradients.dshortcut);
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
