//! Parallax trains and evaluates self-supervised vision encoders on hand-written compute kernels.
//!
//! Three things, one on the other: [`device`] has the kernels, on the CPU and in WGSL; [`autograd`], [`nn`] and
//! [`optim`] are a tape over them, layers and optimisers; [`data`], [`augment`], [`objectives`] and
//! [`evaluate`] are what is done with an encoder; [`runs`] keep its records, and [`paper`] repeats the paper's experiments.

// A closed stdout must not end a run; see `console`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod augment;
pub mod autograd;
pub mod cli;
pub mod console;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod interrupt;
pub mod nn;
pub mod objectives;
pub mod optim;
pub mod paper;
pub mod runs;
pub mod tensor;
pub mod train;

pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Tensor};
