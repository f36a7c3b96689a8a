//! Every kernel of the vocabulary, on every device, against a float64 loop, at shapes that are awkward on purpose.
//! (The kernels that make views have their own test, views_agree.)

#[path = "../devices/mod.rs"]
mod devices;
#[path = "../reference/mod.rs"]
mod reference;

mod compare;

mod attack;
mod batch_norm;
mod determinism;
mod half;
mod losses;
mod optimizer;
mod reference_gradients;
mod shape_errors;
