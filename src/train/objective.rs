//! Objectives: the loss functions of trainings.

use crate::autograd::{BufferUpdate, Completed, Gradients, PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The loss function of a training of a module of type `M`. Closures of type
/// `FnMut(&M, &Tape, u64) -> Result<Var>` implement it.
pub trait Objective<M> {
    /// Records the mean loss of the batch of step `step` (counted from 0), `[1]`, on `tape`. It may
    /// depend only on the tensors of the module and on the step, so that steps can be repeated and
    /// runs resumed.
    ///
    /// # Errors
    /// Those of the module.
    fn loss(&mut self, module: &M, tape: &Tape, step: u64) -> Result<Var>;
}

impl<M, F: FnMut(&M, &Tape, u64) -> Result<Var>> Objective<M> for F {
    fn loss(&mut self, module: &M, tape: &Tape, step: u64) -> Result<Var> {
        self(module, tape, step)
    }
}

/// An objective that can process a batch in chunks, so that only the activations of one chunk are
/// in memory (see [`crate::train::micro_batch`]). The module computes rows of some samples, which are
/// embeddings or logits, and the loss is computed from the rows.
pub trait PartialObjective<M>: Objective<M> {
    /// Whether the loss is a mean over samples. If not, the loss is contrastive: it needs the rows
    /// of all samples, and the rows of `c` samples are `[2c, D]`, first views above second views.
    const IS_MEAN: bool;

    /// The samples of a step, as indices into the data set.
    fn samples(&mut self, step: u64) -> Vec<u32>;

    /// Computes the rows of `samples` of step `step`. A row does not depend on the position of its
    /// sample in the batch.
    ///
    /// # Errors
    /// Those of the module.
    fn rows(&self, module: &M, tape: &Tape, samples: &[u32], step: u64) -> Result<Var>;

    /// Computes the mean loss, `[1]`, from the rows of `samples`.
    ///
    /// # Errors
    /// Those of the operations.
    fn score(&self, rows: &Var, samples: &[u32]) -> Result<Var>;
}

/// The loss of a step, its gradients, and the requested updates of buffers.
pub struct StepGradients {
    /// `[1]`
    pub loss: Tensor,
    pub gradients: Gradients,
    pub updates: Vec<BufferUpdate>,
}

impl StepGradients {
    /// Runs the backward pass of `loss`, which was recorded on `tape`.
    ///
    /// # Errors
    /// As [`Var::backward`]. `Error::Usage` if the loss is on another tape.
    pub fn of(loss: Var, tape: &Tape) -> Result<Self> {
        StepGradients::onto(None, loss, tape, &mut |_, _| Ok(()))
    }

    /// As [`StepGradients::of`]. The gradients are added to `earlier` ones, and each sum is given to
    /// `completed` during the backward pass.
    ///
    /// # Errors
    /// As [`StepGradients::of`], and those of `completed`.
    pub(super) fn onto(
        earlier: Option<Gradients>,
        loss: Var,
        tape: &Tape,
        completed: Completed<'_>,
    ) -> Result<Self> {
        if loss.tape().is_some_and(|own| !own.is_same(tape)) {
            return Err(Error::usage(
                "the loss is on another tape than the one that the objective received; record it on that one",
            ));
        }
        let (value, dy) = (loss.tensor().clone(), loss.scaled_one()?);
        Ok(StepGradients {
            gradients: loss.backward_onto(dy, earlier, completed)?,
            loss: value,
            updates: tape.take_buffer_updates(),
        })
    }
}

/// Computes the loss of a step and its gradients in one pass over the whole batch.
///
/// # Errors
/// Those of the objective and of the backward pass.
pub fn whole_batch<M>(
    objective: &mut impl Objective<M>,
    module: &M,
    (device, options): (&Device, PassOptions),
    step: u64,
) -> Result<StepGradients> {
    let tape = Tape::with(device, options);
    StepGradients::of(objective.loss(module, &tape, step)?, &tape)
}
