//! Exercise 1: the learning rate of SimCLR.
//!
//! The rate rises linearly over the first `warmup` steps, and then follows half a cosine:
//!
//! - a step `t < warmup` has `base * (t + 1) / warmup`;
//! - another step has `base * (1 + cos(pi * p)) / 2`, where `p` rises from 0 at step `warmup` to 1
//!   at step `total`.
//!
//! Steps are counted from 0. The library has it in `src/optim/schedule.rs`.
#![allow(unused_variables)] // until the exercise is solved

/// The learning rate of step `step` of `total`.
pub fn learning_rate(base: f64, step: u64, warmup: u64, total: u64) -> f64 {
    // Replace this line, which keeps the rate constant.
    base
}
