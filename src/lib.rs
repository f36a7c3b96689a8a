//! Parallax trains and evaluates self-supervised vision encoders on hand-written compute kernels.
//!
//! Three things, one on the other: [`device`] has the kernels, on the CPU and in WGSL; [`autograd`], [`nn`] and
//! [`optim`] are a tape over them, layers and optimisers; [`data`], [`augment`], [`objectives`] and
//! [`evaluate`] are what is done with an encoder; [`runs`] keep its records, and [`paper`] repeats the paper's experiments.
//!
//! A program that trains its own network on its own tensors (`examples/own_network.rs`):
//!
//! ```
#![doc = include_str!("../examples/own_network.rs")]
//! ```
//!
//! `examples/custom_op.rs` adds an operation from outside of the crate, with a WGSL kernel and a
//! gradient.

pub mod augment;
pub mod autograd;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod interrupt;
pub mod nn;
pub mod objectives;
pub mod ops;
pub mod optim;
#[cfg(feature = "cli")]
pub mod paper;
pub mod philox;
#[cfg(feature = "cli")]
pub mod runs;
pub mod tensor;
pub mod train;

#[cfg(test)]
extern crate self as parallax;
#[cfg(test)]
mod testing;

pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Tensor};
