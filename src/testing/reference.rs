//! Checks of the float64 references: each gradient against central differences of the float64
//! forward pass.

use super::{normal, random, wide};

/// The largest relative error of a gradient, in the Euclidean norm.
const TOLERANCE: f64 = 1e-6;

/// Fails unless `gradient` agrees with central differences of `f` at `x`.
pub fn check_reference(what: &str, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    let error = relative_error(x, gradient, f);
    assert!(error < TOLERANCE, "{what}: relative error {error:e}");
}

/// The relative norm of the difference between `gradient` and central differences of `f` at `x`.
fn relative_error(x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) -> f64 {
    let step = 1e-5;
    let mut moved = x.to_vec();
    let (mut difference, mut norm) = (0.0, 0.0);
    for i in 0..x.len() {
        moved[i] = x[i] + step;
        let above = f(&moved);
        moved[i] = x[i] - step;
        let below = f(&moved);
        moved[i] = x[i];
        difference += ((above - below) / (2.0 * step) - gradient[i]).powi(2);
        norm += gradient[i].powi(2);
    }
    (difference / norm).sqrt()
}

/// The sum of the products of the elements: a loss whose gradient with respect to `b` is `a`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Standard normal numbers.
pub fn numbers(stream: u32, count: usize) -> Vec<f64> {
    wide(&normal(&mut random(stream), count))
}

#[test]
fn an_error_of_a_hundred_thousandth_is_detected() {
    let x = numbers(100, 5);
    let gradient: Vec<f64> = x.iter().map(|x| 2.0 * x * 1.00001).collect();
    assert!(relative_error(&x, &gradient, |x| dot(x, x)) > TOLERANCE);
}
