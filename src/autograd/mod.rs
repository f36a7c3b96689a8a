//! Differentiable operations over the vocabulary of [`crate::device::kernels`]. One file an operation: what it
//! computes, what it saves for the way back, how it goes back. `tests/gradients.rs` holds each against central
//! differences.
//!
//! Terms with a d-prefix are gradients of the loss: `dy` arrives from the operations that used `y`. An operation
//! computes no gradient for an input that is not tracked.

mod add;
mod batch_norm;
mod cast;
pub mod check;
mod checkpoint;
mod concat;
mod conv2d;
mod conv2d_batch_norm;
mod gemm;
mod global_average_pool;
mod l2_normalize;
mod linear;
mod max_pool2d;
mod normalize;
mod nt_xent;
mod relu;
mod reshape;
mod saved;
mod scale;
mod slice;
mod softmax_cross_entropy;
mod sum;
mod tape;

pub use add::add;
pub use batch_norm::{Affine, batch_norm_evaluation, batch_norm_training};
pub use cast::cast;
pub use checkpoint::{Run, checkpoint};
pub use concat::concat;
pub use conv2d::conv2d;
pub use conv2d_batch_norm::conv2d_batch_norm;
pub use gemm::gemm;
pub use global_average_pool::global_average_pool;
pub use l2_normalize::l2_normalize;
pub use linear::linear;
pub use max_pool2d::max_pool2d;
pub use normalize::normalize;
pub use nt_xent::nt_xent;
pub use relu::relu;
pub use reshape::reshape;
pub use scale::scale;
pub use slice::slice;
pub use softmax_cross_entropy::softmax_cross_entropy;
pub use sum::sum;
pub use tape::{Backward, Gradients, Tape, Var};
