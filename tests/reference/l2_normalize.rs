//! Rows of length 1.

use super::accuracy::{DIVISION, SQRT, U};
use super::{Expected, Sum};

/// (y, norm). The norm is the root of a sum of D squares, so half of that sum's relative error and the root's own;
/// y divides by it.
pub fn l2_normalize(columns: usize, x: &[f64], eps: f64) -> (Expected, Expected) {
    let (mut y, mut norms) = (Expected::default(), Expected::default());
    let relative = 2.0 * (columns as f64).sqrt() * U + SQRT;
    for row in x.chunks(columns) {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(eps);
        norms.push(norm, relative * norm);
        for x in row {
            y.push(x / norm, (relative + DIVISION) * (x / norm).abs());
        }
    }
    (y, norms)
}

/// dx = (dy - y (y . dy)) / norm, or dy / norm where the row was shorter than eps. The bracket is a sum of two, of
/// which the second inherits the error of the dot product (K = D) and a product; then a division.
pub fn l2_normalize_backward(
    columns: usize,
    dy: &[f64],
    y: &[f64],
    norm: &[f64],
    eps: f64,
) -> Expected {
    let mut dx = Expected::default();
    for ((dy, y), &norm) in dy.chunks(columns).zip(y.chunks(columns)).zip(norm) {
        let dot = Sum::of(y.iter().zip(dy).map(|(y, dy)| y * dy));
        for (y, dy) in y.iter().zip(dy) {
            if norm <= eps {
                dx.push(dy / norm, DIVISION * (dy / norm).abs());
                continue;
            }
            let bracket = Sum::of([*dy, -y * dot.value]);
            let value = bracket.value / norm;
            let inherited = y.abs() * (dot.bound() + U * dot.value.abs());
            let bound = (bracket.bound() + inherited) / norm + DIVISION * value.abs();
            dx.push(value, bound);
        }
    }
    dx
}
