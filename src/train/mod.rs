//! What every training has in common: an objective gives a loss for each step, the trainer goes back through it, moves
//! the parameters, and keeps the state of the step before where something is not finite.

mod loss_scale;
pub mod micro_batch;
mod tapes;
mod trainer;

pub use loss_scale::LossScale;
pub use tapes::Tapes;
pub use trainer::{FinishedStep, PendingStep, Trainer};

use crate::autograd::{Gradients, Tape, Var};
use crate::error::Result;
use crate::nn::{Parameter, ResNet};
use crate::tensor::Tensor;

/// What is minimised.
pub trait Objective {
    /// The mean loss of the batch of step `step` (counted from 0), `[1]`, recorded on `tape`. It depends on the
    /// weights, the seed and the step alone, so that a step can be replayed and a run resumed.
    fn loss(&mut self, tape: &Tape, step: u64) -> Result<Var>;

    /// That loss, `[1]`, and its gradients: by one pass over the whole batch, or by less memory where an objective
    /// knows how ([`micro_batch`]).
    fn gradients(&mut self, tapes: &Tapes, step: u64) -> Result<(Tensor, Gradients)> {
        whole_batch(self, tapes, step)
    }

    /// The network whose running statistics follow the training passes.
    fn encoder(&self) -> &ResNet;

    /// Everything that is learned: the encoder's parameters, then what stands on it.
    fn parameters(&self) -> Vec<&Parameter>;

    /// Everything that is learned, then the encoder's running statistics.
    fn state(&self) -> Vec<&Parameter> {
        let mut state = self.parameters();
        state.extend(self.encoder().buffers());
        state
    }
}

/// The loss of a step and its gradients, by one pass over the whole batch.
pub fn whole_batch<O: Objective + ?Sized>(
    objective: &mut O,
    tapes: &Tapes,
    step: u64,
) -> Result<(Tensor, Gradients)> {
    let tape = tapes.recording();
    let loss = objective.loss(&tape, step)?;
    let gradients = tape.backward(&loss)?;
    Ok((loss.tensor().clone(), gradients))
}
