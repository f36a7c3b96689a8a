//! Optimisers with the definitions of PyTorch, and learning-rate schedules.

mod optimizer;
mod schedule;

pub use optimizer::{
    AdamOptions, LarsOptions, Optimization, Optimizer, OptimizerOptions, SgdOptions,
};
pub use schedule::{Decay, Milestones, Schedule};
