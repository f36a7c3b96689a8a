//! One training under way: steps that are recorded without waiting, and the replay of a step that went wrong.

use super::{Objective, Tapes};
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
    /// u32 `[1]`: set by the first loss or gradient that is not finite. It shuts the optimiser and the running statistics
    /// from then on, so that the state stays that of the step before.
    flag: Tensor,
    /// Whether blocks are computed again on the way back, for memory.
    recompute: bool,
}

/// A step that was recorded, whose loss may not have been computed yet.
pub struct PendingStep {
    /// Counted from 0.
    pub step: u64,
    pub learning_rate: f32,
    loss: Readback,
    flag: Readback,
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
        })
    }

    /// The same training, whose network's blocks are computed again on the way back where `recompute` says so: the same
    /// bits with less memory and another forward pass.
    pub fn recomputing(self, recompute: bool) -> Self {
        Trainer { recompute, ..self }
    }

    /// Records step `step` (counted from 0) without waiting for it.
    pub fn step(&mut self, step: u64) -> Result<PendingStep> {
        let tapes = Tapes::new(&self.device).recomputing(self.recompute);
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
        };
        self.device.submit()?;
        Ok(pending)
    }

    /// Waits for a step's loss.
    ///
    /// # Errors
    /// `Error::NonFinite` where its loss or a gradient was not finite: the step is computed again from the same state and
    /// the same random numbers with a check after each operation, and the error names the first bad tensor.
    pub fn finish(&mut self, pending: PendingStep) -> Result<f32> {
        let is_finite = pending.flag.wait_u32()?.first() == Some(&0);
        let loss = pending.loss.wait_f32()?;
        match loss.first() {
            Some(&loss) if is_finite => Ok(loss),
            _ => Err(self.diagnose(pending.step)),
        }
    }

    fn diagnose(&mut self, step: u64) -> Error {
        let advice = "the weights are those of the step before; try a lower learning rate, or for SimCLR a higher temperature";
        self.objective.encoder().discard_running_statistics();
        let tapes = Tapes::checked(&self.device).recomputing(self.recompute);
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
