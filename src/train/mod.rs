//! Training of any [`Module`](crate::nn::Module): an objective computes the loss of a step, and the
//! trainer runs the backward pass, updates the parameters, and keeps the state of the step before if a
//! number is not finite.

mod loss_scale;
pub mod micro_batch;
mod objective;
mod trainer;

pub use loss_scale::LossScale;
pub use objective::{Objective, PartialObjective, StepGradients, whole_batch};
pub use trainer::{FinishedStep, PendingStep, Trainer};
