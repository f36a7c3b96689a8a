//! Objectives: the functions that a training minimises.

use crate::autograd::{BufferUpdate, Gradients, PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// The function that a training of a module of type `M` minimises. A closure
/// `FnMut(&M, &Tape, u64) -> Result<Var>` is one.
pub trait Objective<M> {
    /// The mean loss of the batch of step `step` (counted from 0), `[1]`, recorded on `tape`. It depends
    /// only on the tensors of the module and on the step, so that a step can be repeated and a run
    /// resumed.
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

/// An objective whose batch can pass the module in parts, so that only the activations of one part are
/// in memory: the module computes rows for some samples, and the loss is computed from rows. See
/// [`crate::train::micro_batch`].
pub trait PartialObjective<M>: Objective<M> {
    /// Whether the loss is a mean over samples. If not, as in a contrastive loss, the rows of `c`
    /// samples are `[2c, D]`, first views above second views, and the loss needs the rows of all
    /// samples.
    const IS_MEAN: bool;

    /// The samples of a step, as indices into the data set.
    fn samples(&mut self, step: u64) -> Vec<u32>;

    /// The rows of `samples`, which belong to step `step`. A row depends on its sample, and not on its
    /// position in the batch.
    ///
    /// # Errors
    /// Those of the module.
    fn rows(&self, module: &M, tape: &Tape, samples: &[u32], step: u64) -> Result<Var>;

    /// The mean loss, `[1]`, of the rows of `samples`.
    ///
    /// # Errors
    /// Those of the operations.
    fn score(&self, rows: &Var, samples: &[u32]) -> Result<Var>;
}

/// The loss of a step, its gradients, and the changes of buffers that its passes requested.
pub struct StepGradients {
    /// `[1]`
    pub loss: Tensor,
    pub gradients: Gradients,
    pub updates: Vec<BufferUpdate>,
}

impl StepGradients {
    /// The gradients of `loss`, which was recorded on `tape`.
    ///
    /// # Errors
    /// As [`Var::backward`].
    pub fn of(loss: Var, tape: &Tape) -> Result<Self> {
        let value = loss.tensor().clone();
        Ok(StepGradients {
            gradients: loss.backward()?,
            loss: value,
            updates: tape.take_buffer_updates(),
        })
    }
}

/// The loss of a step and its gradients, by one pass over the whole batch.
///
/// # Errors
/// Those of the objective, and of the backward pass.
pub fn whole_batch<M>(
    objective: &mut impl Objective<M>,
    module: &M,
    (device, options): (&Device, PassOptions),
    step: u64,
) -> Result<StepGradients> {
    let tape = Tape::with(device, options);
    StepGradients::of(objective.loss(module, &tape, step)?, &tape)
}
