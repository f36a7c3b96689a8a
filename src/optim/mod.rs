//! Optimisers as torch defines them, and learning-rate schedules.

mod optimizer;
mod schedule;

pub use optimizer::{AdamOptions, Optimization, Optimizer, OptimizerOptions, SgdOptions};
pub use schedule::Schedule;
