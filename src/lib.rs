//! A training engine for self-supervised vision encoders, on compute kernels in Rust and WGSL that
//! are part of this crate. The program `parallax` is built on it.
//!
//! A [`Device`] is the CPU or a GPU, and holds [`Tensor`]s. [`ops`] has the operations, each with
//! one kernel in Rust and one in WGSL. On a [`Tape`](autograd::Tape) they are methods of
//! [`Var`](autograd::Var), and have gradients. [`nn`] has layers and ResNets, [`optim`] the
//! optimiser, and [`train`] a [`Trainer`](train::Trainer) for any [`Module`](nn::Module). This
//! program trains a network of its own on its own tensors (`examples/own_network.rs`):
//!
//! ```
#![doc = include_str!("../examples/own_network.rs")]
//! ```
//!
//! [`data`] reads images, [`augment`] draws random views of them, [`objectives`] has SimCLR, RotNet
//! and classification, [`evaluate`] measures encoders, and [`selftest`] checks a device. With the
//! feature `cli`, [`runs`] keeps the records of trainings, [`paper`] runs the experiments of the
//! paper, and [`cli`] is the command line.
//!
//! `examples/custom_op.rs` adds an operation from outside of this crate, with its own WGSL kernel
//! and gradient.

// A closed stdout must not end a run; see `console`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod augment;
pub mod autograd;
#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod console;
pub mod data;
pub mod device;
pub mod distributed;
#[cfg(feature = "cli")]
pub mod drawing;
pub mod error;
pub mod evaluate;
pub mod file_kind;
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
pub mod selftest;
mod sha256;
pub mod tensor;
pub mod train;

#[cfg(test)]
extern crate self as parallax;
mod testing;

pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Tensor};
