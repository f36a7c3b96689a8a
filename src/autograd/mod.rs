//! Reverse-mode differentiation: a tape that records operations, and their gradients.
//!
//! [`crate::ops`] defines the operations, which are methods of [`Var`].

mod checkpoint;
pub mod gradcheck;
mod gradients;
mod recompute;
mod tape;
mod var;

pub(crate) use gradients::Completed;
pub use gradients::Gradients;
pub(crate) use recompute::{Recompute, Saved};
pub(crate) use tape::RunningStatistics;
pub use tape::{BufferUpdate, Mode, PassOptions, Tape};
pub use var::Var;
