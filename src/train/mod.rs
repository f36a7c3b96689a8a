//! Training of any [`Module`](crate::nn::Module). An objective computes the loss of a step. The
//! trainer runs the backward pass and updates the parameters, unless the loss or a gradient is not
//! finite.

pub mod data_parallel;
mod loss_scale;
pub mod micro_batch;
mod objective;
mod running_statistics;
mod trainer;

pub use loss_scale::LossScale;
pub use objective::{Objective, PartialObjective, StepGradients, whole_batch};
pub use trainer::{FinishedStep, PendingStep, Trainer};
