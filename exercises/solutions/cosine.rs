//! A solution of exercise 1.

use std::f64::consts::PI;

/// The learning rate of step `step` of `total`.
pub fn learning_rate(base: f64, step: u64, warmup: u64, total: u64) -> f64 {
    if step < warmup {
        return base * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (total - warmup) as f64;
    base * (1.0 + (PI * progress).cos()) / 2.0
}
