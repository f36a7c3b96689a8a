//! Every kernel of the vocabulary, on every device, against a float64 loop, at shapes that are awkward on purpose.

#[path = "../devices/mod.rs"]
mod devices;
#[path = "../reference/mod.rs"]
mod reference;

mod compare;

mod conv2d;
mod determinism;
mod elementwise;
mod gemm;
mod half;
mod pool;
mod reduce;
mod reference_gradients;
mod shape_errors;
mod storage;
mod variants;
