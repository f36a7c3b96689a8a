//! Optimisers with the definitions of PyTorch, and learning-rate schedules.

mod optimizer;
mod schedule;

pub use optimizer::{AdamOptions, Optimization, Optimizer, OptimizerOptions, SgdOptions};
pub use schedule::Schedule;
