//! One training under way: steps that are recorded without waiting, and the replay of a step that went wrong.

use std::collections::VecDeque;

use super::{LossScale, Objective, Tapes};
use crate::device::kernels::HostSlice;
use crate::device::{Device, Readback};
use crate::error::{Error, Result};
use crate::nn::Parameter;
use crate::optim::{Optimization, Optimizer};
use crate::tensor::{DType, Tensor};

/// An objective, its optimiser, and the flag that guards both.
pub struct Trainer<O> {
    device: Device,
    pub objective: O,
    optimization: Optimization,
    optimizer: Optimizer,
    /// u32 `[1]`: set by the first loss or gradient that is not finite. It shuts the optimiser and the running
    /// statistics from then on, so that the state stays that of the step before.
    flag: Tensor,
    /// Whether blocks are computed again on the way back, for memory.
    recompute: bool,
    /// How the network's activations are stored.
    activations: DType,
    /// Of the next step, where activations are f16.
    loss_scale: Option<LossScale>,
    /// How often steps were taken again with a smaller loss scale.
    overflows: u32,
    /// The steps of the last time that this happened, but for those that were finished since.
    again: VecDeque<PendingStep>,
    /// The step that was recorded last.
    last: Option<u64>,
}

/// A step that was recorded, whose loss may not have been computed yet.
pub struct PendingStep {
    /// Counted from 0.
    pub step: u64,
    pub learning_rate: f32,
    loss: Readback,
    flag: Readback,
    loss_scale: Option<LossScale>,
    /// Steps that the optimiser had taken before.
    optimizer_steps: u32,
    /// The trainer's count when it was recorded.
    overflows: u32,
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinishedStep {
    /// Before its update, not scaled.
    pub loss: f32,
    /// What it was multiplied by for its gradient, where activations are f16.
    pub loss_scale: Option<f32>,
    /// How often the step was taken again, since a gradient overflowed.
    pub overflows: u32,
}

impl<O: Objective> Trainer<O> {
    /// A training that has taken no step.
    ///
    /// # Errors
    /// `Error::Device` where memory for the optimiser's state is short.
    pub fn new(device: &Device, objective: O, optimization: Optimization) -> Result<Self> {
        let optimizer = Optimizer::new(device, &objective.parameters(), optimization.optimizer)?;
        Ok(Trainer {
            device: device.clone(),
            objective,
            optimization,
            optimizer,
            flag: device.zeros(&[1], DType::U32)?,
            recompute: false,
            activations: DType::F32,
            loss_scale: None,
            overflows: 0,
            again: VecDeque::new(),
            last: None,
        })
    }

    /// The same training, whose network's blocks are computed again on the way back where `recompute` says so: the same
    /// bits with less memory and another forward pass.
    pub fn recomputing(self, recompute: bool) -> Self {
        Trainer { recompute, ..self }
    }

    /// The same training, whose network's activations and their gradients are stored as `activations`, f32 or f16; with
    /// f16 the loss is scaled. Weights, their gradients and the optimiser's state stay f32.
    ///
    /// # Errors
    /// `Error::Device` where the device has no f16.
    pub fn with_activations(self, activations: DType) -> Result<Self> {
        // Says so where there is no such type.
        self.device.zeros(&[1], activations)?;
        let loss_scale = (activations == DType::F16).then(LossScale::default);
        Ok(Trainer {
            activations,
            loss_scale,
            ..self
        })
    }

    fn tapes(&self, tapes: Tapes, loss_scale: Option<LossScale>) -> Tapes {
        let scale = loss_scale.map_or(1.0, |loss_scale| loss_scale.scale);
        tapes
            .recomputing(self.recompute)
            .with_activations(self.activations, scale)
    }

    /// Records step `step` (counted from 0) without waiting for it.
    pub fn step(&mut self, step: u64) -> Result<PendingStep> {
        let loss_scale = self.loss_scale;
        let optimizer_steps = self.optimizer.steps();
        let tapes = self.tapes(Tapes::new(&self.device), loss_scale);
        let (loss, gradients) = self.objective.gradients(&tapes, step)?;
        self.device.check_finite(&loss, &self.flag)?;
        for gradient in gradients.iter() {
            self.device.check_finite(gradient, &self.flag)?;
        }
        let rate = self.optimization.schedule;
        let learning_rate = rate.learning_rate(self.optimization.learning_rate, step);
        self.optimizer
            .step(learning_rate, &gradients, Some(&self.flag))?;
        self.objective
            .encoder()
            .commit_running_statistics(Some(&self.flag))?;
        let pending = PendingStep {
            step,
            learning_rate,
            loss: self.device.download(&loss)?,
            flag: self.device.download(&self.flag)?,
            loss_scale,
            optimizer_steps,
            overflows: self.overflows,
        };
        self.device.submit()?;
        // As if it were good: where it is not, it is taken again, and all that follow.
        self.loss_scale = loss_scale.map(LossScale::after_good_step);
        self.last = Some(step);
        Ok(pending)
    }

    /// Waits for a step's loss. Where a gradient overflowed f16, this step and all that were recorded after it are
    /// taken again from the same state, which the flag has kept, with half the loss scale: none is lost, and a run
    /// repeats to the bit.
    ///
    /// # Errors
    /// `Error::NonFinite` where its loss or a gradient was not finite: the step is computed again from the same state
    /// and the same random numbers with a check after each operation, and the error names the first bad tensor.
    pub fn finish(&mut self, pending: PendingStep) -> Result<f32> {
        self.finish_scaled(pending).map(|finished| finished.loss)
    }

    /// As [`Trainer::finish`], with how the loss was scaled.
    ///
    /// # Errors
    /// As [`Trainer::finish`].
    pub fn finish_scaled(&mut self, mut pending: PendingStep) -> Result<FinishedStep> {
        let before = self.overflows;
        if pending.overflows != self.overflows {
            // It ran behind a step that overflowed, and did nothing.
            pending = self.taken_again(pending.step)?;
        }
        loop {
            let (step, loss_scale) = (pending.step, pending.loss_scale);
            let is_finite = pending.flag.wait_u32()?.first() == Some(&0);
            let loss = pending.loss.wait_f32()?.first().copied();
            let loss = loss.unwrap_or(f32::NAN);
            if is_finite {
                return Ok(FinishedStep {
                    loss,
                    loss_scale: loss_scale.map(|loss_scale| loss_scale.scale),
                    overflows: self.overflows - before,
                });
            }
            // A loss is not scaled before it is computed: a smaller scale would not mend it.
            let scaled = loss_scale.filter(|_| loss.is_finite());
            let Some(smaller) = scaled.and_then(LossScale::after_overflow) else {
                return Err(self.diagnose(step, loss_scale));
            };
            self.take_again(step, pending.optimizer_steps, smaller)?;
            pending = self.taken_again(step)?;
        }
    }

    /// The step as it was taken again after an overflow.
    fn taken_again(&mut self, step: u64) -> Result<PendingStep> {
        let again = self.again.pop_front().filter(|again| again.step == step);
        again.ok_or_else(|| {
            Error::usage("finish a training's steps in the order in which they were recorded")
        })
    }

    /// Takes the steps from `step` on again, from the state before it.
    fn take_again(&mut self, step: u64, optimizer_steps: u32, loss_scale: LossScale) -> Result<()> {
        self.overflows += 1;
        self.loss_scale = Some(loss_scale);
        self.optimizer.resume_at(optimizer_steps);
        self.device.overwrite(&self.flag, HostSlice::U32(&[0]))?;
        self.again.clear();
        for step in step..=self.last.unwrap_or(step) {
            let pending = self.step(step)?;
            self.again.push_back(pending);
        }
        Ok(())
    }

    fn diagnose(&mut self, step: u64, loss_scale: Option<LossScale>) -> Error {
        let advice = match self.activations {
            DType::F16 => {
                "the weights are those of the step before; try --precision f32, a lower learning rate, or for SimCLR a \
                 higher temperature"
            }
            _ => {
                "the weights are those of the step before; try a lower learning rate, or for SimCLR a higher temperature"
            }
        };
        self.objective.encoder().discard_running_statistics();
        let tapes = self.tapes(Tapes::checked(&self.device), loss_scale);
        match self.objective.gradients(&tapes, step) {
            Err(Error::NonFinite(what)) => {
                Error::NonFinite(format!("step {}: {what}; {advice}", step + 1))
            }
            Err(other) => other,
            Ok(_) => Error::NonFinite(format!(
                "step {}: the loss or a gradient is not finite, and every operation of its replay is; {advice}",
                step + 1
            )),
        }
    }

    /// The loss scale of the next step, where there is one.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    /// Goes on with the loss scale of a checkpoint, or of the caller's choice; without f16 there is none.
    pub fn resume_with_loss_scale(&mut self, loss_scale: LossScale) {
        self.loss_scale = self.loss_scale.map(|_| loss_scale);
    }

    /// Steps that the optimiser has taken.
    pub fn optimizer_steps(&self) -> u32 {
        self.optimizer.steps()
    }

    /// Says how many steps the optimiser's state has seen, after [`Trainer::state`] was loaded.
    pub fn resume_at(&mut self, optimizer_steps: u32) {
        self.optimizer.resume_at(optimizer_steps);
    }

    /// All that a checkpoint keeps: the objective's state, then the optimiser's.
    pub fn state(&self) -> Vec<&Parameter> {
        let mut state = self.objective.state();
        state.extend(self.optimizer.state());
        state
    }
}
