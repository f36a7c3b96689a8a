//! Training: records steps without waiting for them, and replays a step that failed. If a gradient
//! overflows f16, no later step changes the state, so all unfinished steps are recorded again with
//! half the loss scale.

use super::running_statistics::FlatStatistics;
use super::{
    LossScale, Objective, PartialObjective, StepGradients, data_parallel, micro_batch, whole_batch,
};
use crate::autograd::PassOptions;
use crate::device::{Device, Readback, block_on};
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::nn::{Module, Parameter, check_distinct};
use crate::ops::reduce::CheckFinite;
use crate::optim::{Optimization, Optimizer};
use crate::tensor::{DType, Tensor};

/// Computes the loss of a step and its gradients: [`whole_batch`], or, for a [`PartialObjective`],
/// [`micro_batch::in_chunks`] or [`data_parallel::in_ranks`]. The last argument is the group and
/// the number of samples per chunk. A function pointer, so that one [`Trainer`] serves objectives
/// that can be split into chunks and those that cannot.
type ComputeGradients<M, O> =
    fn(&mut O, &M, (&Device, PassOptions), u64, (Group, usize)) -> Result<StepGradients>;

/// A module in training, with its objective and its optimiser.
pub struct Trainer<M, O> {
    pub module: M,
    pub objective: O,
    device: Device,
    optimization: Optimization,
    optimizer: Optimizer,
    /// On a GPU, the running statistics of batch norms.
    statistics: Option<FlatStatistics>,
    /// u32 `[1]`, set by the first loss or gradient that is not finite. It disables all later
    /// updates of parameters and buffers, so the state remains that of the step before.
    flag: Tensor,
    options: PassOptions,
    compute: ComputeGradients<M, O>,
    /// The ranks, and the samples per chunk, for `compute`.
    group: Group,
    micro_batch: usize,
    /// The loss scale of the next step, for f16 activations or factors.
    loss_scale: Option<LossScale>,
    /// Number of overflows, after each of which steps were repeated with a smaller loss scale.
    overflows: u32,
    /// Numbers of the recorded steps that are not known to be finite, and the steps. The numbers
    /// count all recorded steps.
    unfinished: Vec<(u64, u64)>,
    /// The number of the next recorded step.
    next: u64,
    /// Repetitions of unfinished steps after an overflow.
    repeated: Vec<PendingStep>,
}

/// A recorded step, whose loss may not have been computed yet.
pub struct PendingStep {
    /// Counted from 0.
    pub step: u64,
    pub learning_rate: f32,
    /// The flag of the trainer that recorded the step, which identifies the trainer.
    trainer: u64,
    /// See [`Trainer::unfinished`].
    number: u64,
    loss: Readback,
    flag: Readback,
    loss_scale: Option<LossScale>,
    /// Number of steps of the optimiser before this step.
    optimizer_steps: u32,
    /// [`Trainer::overflows`] at the time of recording.
    overflows: u32,
}

/// A finished step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinishedStep {
    /// The loss before the update of this step, not scaled.
    pub loss: f32,
    /// The factor of the loss in the backward pass, for f16 activations or factors.
    pub loss_scale: Option<f32>,
    /// Number of repetitions of the step because a gradient overflowed.
    pub overflows: u32,
}

impl<M: Module, O: Objective<M>> Trainer<M, O> {
    /// A training without any steps yet.
    ///
    /// # Errors
    /// `Error::Usage` if the module has no parameters, if two tensors of its state share a name or
    /// their elements, or if a parameter is not f32; `Error::Device` if memory for the optimiser's
    /// state is short.
    pub fn new(module: M, optimization: Optimization, objective: O) -> Result<Self> {
        let parameters = module.parameters();
        let Some(first) = parameters.first() else {
            return Err(Error::usage(
                "the module has no parameters; a training needs 1 or more",
            ));
        };
        let device = first.value.device();
        check_distinct(&module.state())?;
        let optimizer = Optimizer::new(&parameters, optimization.optimizer)?;
        let statistics = FlatStatistics::new(&module.buffers())?;
        Ok(Trainer {
            statistics,
            flag: Tensor::zeros(&[1], DType::U32, &device)?,
            module,
            objective,
            device,
            optimization,
            optimizer,
            options: PassOptions::default(),
            compute: |objective, module, pass, step, _| whole_batch(objective, module, pass, step),
            group: Group::ALONE,
            micro_batch: usize::MAX,
            loss_scale: None,
            overflows: 0,
            unfinished: Vec::new(),
            next: 0,
            repeated: Vec::new(),
        })
    }

    /// Sets the options of the passes, but for the loss scale: the trainer scales the loss if
    /// activations or the factors of products are f16. Weights, their gradients and the state of
    /// the optimiser are always f32.
    ///
    /// # Errors
    /// `Error::Usage` if activations are neither f32 nor f16; `Error::Device` if the device does not
    /// support their type.
    pub fn with_options(self, options: PassOptions) -> Result<Self> {
        if !matches!(options.activations, DType::F32 | DType::F16) {
            let message = format!("activations are {}; use f32 or f16", options.activations);
            return Err(Error::usage(message));
        }
        // Fails if the device does not support the type.
        Tensor::zeros(&[1], options.activations, &self.device)?;
        let mut has_f16_gradients = options.activations == DType::F16;
        if options.rounds_factors {
            Tensor::zeros(&[1], DType::F16, &self.device)?;
            has_f16_gradients = true;
        }
        let loss_scale = has_f16_gradients.then(LossScale::default);
        Ok(Trainer {
            options,
            loss_scale,
            ..self
        })
    }

    /// Sets the number of samples that the module processes at a time: see
    /// [`crate::train::micro_batch`].
    pub fn with_micro_batch(self, samples: usize) -> Self
    where
        O: PartialObjective<M>,
    {
        let group = self.group;
        Trainer {
            micro_batch: samples,
            ..self.with_group(group)
        }
    }

    /// Divides each batch among the ranks of `group`: see [`data_parallel`]. Every rank needs the
    /// same module, objective and options, and calls the same methods in the same order.
    pub fn with_group(self, group: Group) -> Self
    where
        O: PartialObjective<M>,
    {
        Trainer {
            compute: |objective, module, pass, step, (group, samples)| match group.size() {
                1 => micro_batch::in_chunks(objective, module, pass, step, samples),
                _ => data_parallel::in_ranks(objective, module, pass, step, (group, samples)),
            },
            group,
            ..self
        }
    }

    /// Computes the loss and the gradients of a step. With `check`, an operation fails if a value
    /// is not finite.
    fn gradients(
        &mut self,
        step: u64,
        loss_scale: Option<LossScale>,
        check: bool,
    ) -> Result<StepGradients> {
        let options = PassOptions {
            loss_scale: loss_scale.map_or(1.0, |loss_scale| loss_scale.scale),
            check: check || self.options.check,
            ..self.options
        };
        let (pass, objective) = ((&self.device, options), &mut self.objective);
        let parts = (self.group, self.micro_batch);
        let before = self.device.round_factors(options.rounds_factors);
        let gradients = (self.compute)(objective, &self.module, pass, step, parts);
        self.device.round_factors(before);
        gradients
    }

    /// Records step `step` (counted from 0) without waiting for it. Finish every step: if one is
    /// dropped and a later one is not finite, no more steps can be finished.
    ///
    /// # Errors
    /// Those of the objective and of the backward pass.
    pub fn step(&mut self, step: u64) -> Result<PendingStep> {
        let pending = self.record(step, self.next)?;
        self.unfinished.push((self.next, step));
        self.next += 1;
        Ok(pending)
    }

    /// Records the passes and the update of a step, starts to read its loss and flag, and submits
    /// it. `number` counts the recorded steps.
    fn record(&mut self, step: u64, number: u64) -> Result<PendingStep> {
        let loss_scale = self.loss_scale;
        let optimizer_steps = self.optimizer.steps();
        self.optimizer.prepare(self.options.activations)?;
        let StepGradients {
            loss,
            gradients,
            updates,
        } = self.gradients(step, loss_scale, false)?;
        let (device, flag) = (&self.device, &self.flag);
        device.run(CheckFinite { x: &loss, flag })?;
        match self.optimizer.whole_gradient(&gradients) {
            Some(x) => device.run(CheckFinite { x, flag })?,
            None => {
                for x in gradients.iter() {
                    device.run(CheckFinite { x, flag })?;
                }
            }
        }
        let learning_rate = self.optimization.rate(step);
        self.optimizer.step(learning_rate, &gradients, Some(flag))?;
        let applied = match &mut self.statistics {
            Some(statistics) => statistics.apply(device, &updates, flag)?,
            None => 0,
        };
        for update in &updates[applied..] {
            update.apply(device, Some(flag))?;
        }
        let pending = PendingStep {
            step,
            learning_rate,
            trainer: self.flag.id(),
            number,
            loss: loss.read()?,
            flag: flag.read()?,
            loss_scale,
            optimizer_steps,
            overflows: self.overflows,
        };
        self.device.submit()?;
        // Assumes that no gradient overflows. If one does, this step and all later ones are
        // repeated.
        self.loss_scale = loss_scale.map(LossScale::after_good_step);
        Ok(pending)
    }

    /// Waits for the loss of a step. If a gradient overflowed f16, this step and all steps that
    /// were recorded after it are repeated with half the loss scale. They start from the same
    /// state, so no step is lost and a run is reproducible to the bit.
    ///
    /// # Errors
    /// `Error::NonFinite` if the loss or a gradient is not finite. The step is replayed from the
    /// same state with a check after each operation, and the error names the first tensor that is
    /// not finite. `Error::Usage` if another trainer recorded the step, or if it is not finite and
    /// an earlier step must be finished first.
    pub fn finish(&mut self, pending: PendingStep) -> Result<f32> {
        self.finish_scaled(pending).map(|finished| finished.loss)
    }

    /// As [`Trainer::finish`], and returns the loss scale.
    ///
    /// # Errors
    /// As [`Trainer::finish`].
    pub fn finish_scaled(&mut self, pending: PendingStep) -> Result<FinishedStep> {
        block_on(self.finish_async(pending))
    }

    /// As [`Trainer::finish_scaled`]. Outside of a browser, it blocks the thread.
    ///
    /// # Errors
    /// As [`Trainer::finish`]. In a browser, an error does not name the tensor.
    pub async fn finish_async(&mut self, mut pending: PendingStep) -> Result<FinishedStep> {
        let before = self.overflows;
        let number = pending.number;
        if pending.trainer != self.flag.id() {
            return Err(Error::usage(format!(
                "step {} was recorded by another trainer; finish it with that one",
                pending.step + 1
            )));
        }
        if pending.overflows != self.overflows {
            // If the step was recorded after one that overflowed, it had no effect.
            pending = self.repeated_step(number).unwrap_or(pending);
        }
        loop {
            let (step, loss_scale) = (pending.step, pending.loss_scale);
            let is_finite = pending.flag.wait_as_async::<u32>().await?.first() == Some(&0);
            let loss = pending.loss.wait_as_async::<f32>().await?.first().copied();
            let loss = loss.unwrap_or(f32::NAN);
            if is_finite {
                // No earlier step set the flag either.
                self.unfinished.retain(|(other, _)| *other > number);
                return Ok(FinishedStep {
                    loss,
                    loss_scale: loss_scale.map(|loss_scale| loss_scale.scale),
                    overflows: self.overflows - before,
                });
            }
            if let Some((_, first)) = self.unfinished.first().filter(|(n, _)| *n < number) {
                return Err(Error::usage(format!(
                    "step {} is not finite, or step {}, which was recorded before it, is not; finish steps in the \
                     order in which they were recorded",
                    step + 1,
                    first + 1
                )));
            }
            // The loss itself is not scaled, so a smaller scale would not make it finite.
            let repairable = loss_scale.filter(|_| loss.is_finite());
            let Some(smaller) = repairable.and_then(LossScale::after_overflow) else {
                self.unfinished.retain(|(other, _)| *other > number);
                return Err(self.diagnose(step, loss_scale));
            };
            self.repeat(pending.optimizer_steps, smaller)?;
            let repeated = self.repeated_step(number);
            pending = repeated.ok_or_else(|| {
                Error::usage(format!(
                    "step {} is not finite and was finished before; record it again",
                    step + 1
                ))
            })?;
        }
    }

    /// Removes and returns the repetition of a step, which [`Trainer::repeat`] recorded.
    fn repeated_step(&mut self, number: u64) -> Option<PendingStep> {
        let index = self.repeated.iter().position(|s| s.number == number)?;
        Some(self.repeated.remove(index))
    }

    /// Records the unfinished steps again, from the state before the first of them.
    fn repeat(&mut self, optimizer_steps: u32, loss_scale: LossScale) -> Result<()> {
        self.overflows += 1;
        self.loss_scale = Some(loss_scale);
        self.optimizer.resume_at(optimizer_steps);
        self.flag.overwrite(&[0u32])?;
        self.repeated.clear();
        for (number, step) in self.unfinished.clone() {
            let pending = self.record(step, number)?;
            self.repeated.push(pending);
        }
        Ok(())
    }

    /// Replays a step with checks and returns the error.
    fn diagnose(&mut self, step: u64, loss_scale: Option<LossScale>) -> Error {
        let precision = match self.options.activations {
            DType::F16 => "f32 activations, ",
            _ if self.options.rounds_factors => "f32 factors of products, ",
            _ => "",
        };
        let advice = format!(
            "the weights are those of the step before; try {precision}a lower learning rate, or for SimCLR \
             a higher temperature"
        );
        if !self.device.can_block() {
            return Error::NonFinite(format!(
                "step {}: the loss or a gradient is not finite; {advice}",
                step + 1
            ));
        }
        match self.gradients(step, loss_scale, true) {
            Err(Error::NonFinite(what)) => {
                Error::NonFinite(format!("step {}: {what}; {advice}", step + 1))
            }
            Err(other) => other,
            Ok(_) => Error::NonFinite(format!(
                "step {}: the loss or a gradient is not finite, but a replay found only finite numbers; {advice}",
                step + 1
            )),
        }
    }

    /// The loss scale of the next step, if activations or factors are f16.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    /// Sets the loss scale when a run is resumed. Has no effect without f16.
    pub fn resume_with_loss_scale(&mut self, loss_scale: LossScale) {
        self.loss_scale = self.loss_scale.map(|_| loss_scale);
    }

    /// The number of steps of the optimiser.
    pub fn optimizer_steps(&self) -> u32 {
        self.optimizer.steps()
    }

    /// Sets the base learning rate of the next steps. The optimiser keeps its state.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimization.learning_rate = learning_rate;
    }

    /// Sets the number of steps of the optimiser when a run is resumed and [`Trainer::state`] is
    /// loaded.
    pub fn resume_at(&mut self, optimizer_steps: u32) {
        self.optimizer.resume_at(optimizer_steps);
    }

    /// The tensors of a checkpoint: the state of the module, then that of the optimiser.
    pub fn state(&self) -> Vec<&Parameter> {
        let mut state = self.module.state();
        state.extend(self.optimizer.state());
        state
    }
}
