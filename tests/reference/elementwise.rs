//! Element-wise kernels and plain sums.

use super::{Expected, Sum};

pub fn add(a: &[f64], b: &[f64]) -> Expected {
    Expected::elementwise(a.iter().zip(b).map(|(a, b)| a + b).collect())
}

/// max(x, 0), NaN kept.
pub fn rectified(x: f64) -> f64 {
    if x > 0.0 || x.is_nan() { x } else { 0.0 }
}

pub fn relu(x: &[f64]) -> Expected {
    Expected::exact(x.iter().map(|&x| rectified(x)).collect())
}

pub fn relu_backward(dy: &[f64], y: &[f64]) -> Expected {
    let dx = |(&dy, &y): (&f64, &f64)| if y > 0.0 { dy } else { 0.0 };
    Expected::exact(dy.iter().zip(y).map(dx).collect())
}

pub fn scale(factor: f64, x: &[f64]) -> Expected {
    Expected::elementwise(x.iter().map(|x| factor * x).collect())
}

/// factor x + y: two products, which may cancel.
pub fn axpy(factor: f64, x: &[f64], y: &[f64]) -> Expected {
    let element = |(x, y): (&f64, &f64)| Sum::of([factor * x, *y]);
    x.iter().zip(y).map(element).collect()
}

pub fn sum(x: &[f64]) -> Expected {
    [Sum::of(x.iter().copied())].into_iter().collect()
}

pub fn sum_rows(x: &[f64], columns: usize) -> Expected {
    let column = |c: usize| Sum::of(x.iter().skip(c).step_by(columns).copied());
    (0..columns).map(column).collect()
}
