//! Batch norm over N, H, W of each channel.

use super::accuracy::{DIVISION, ONE_OVER_SQRT, U};
use super::elementwise::rectified;
use super::{Expected, Sum};

/// The elements of channel `c`, image by image.
fn channel([n, channels, h, w]: [usize; 4], c: usize) -> impl Iterator<Item = usize> + Clone {
    let plane = h * w;
    (0..n).flat_map(move |i| {
        let start = (i * channels + c) * plane;
        start..start + plane
    })
}

/// The channel of element `i`.
fn channel_of([_, channels, h, w]: [usize; 4], i: usize) -> usize {
    i / (h * w) % channels
}

/// Mean and biased variance.
///
/// The mean is a sum of m terms divided by m; its bound is `e`. The variance is the sum of squares of centred elements:
/// as a sum of m products it may be off by 4 sqrt(m) U of itself, and by three roundings an element. Centring with a
/// mean that is off by e adds e^2. What remains is that the centred numbers themselves, or the means of parts that are
/// put together, carry a rounding error of the size of x: by Cauchy and Schwarz it moves the variance by
/// 2 std U rms(x) for each rounding, of which four are allowed. A difference of mean squares would need the far larger
/// U rms(x)^2 and fails.
pub fn statistics(shape: [usize; 4], x: &[f64]) -> (Expected, Expected) {
    let (mut means, mut variances) = (Expected::default(), Expected::default());
    for c in 0..shape[1] {
        let elements = channel(shape, c);
        let m = elements.clone().count() as f64;
        let sum = Sum::of(elements.clone().map(|i| x[i]));
        let mean = sum.value / m;
        let mean_bound = sum.bound() / m + DIVISION * mean.abs();
        let squares = Sum::of(elements.clone().map(|i| (x[i] - mean).powi(2)));
        let variance = squares.value / m;
        let rms = (elements.map(|i| x[i] * x[i]).sum::<f64>() / m).sqrt();
        let variance_bound = squares.bound() / m
            + (3.0 * U + DIVISION) * variance
            + mean_bound * mean_bound
            + 4.0 * 2.0 * variance.sqrt() * U * rms;
        means.push(mean, mean_bound);
        variances.push(variance, variance_bound);
    }
    (means, variances)
}

/// y = (x - mean) / sqrt(variance + eps) gamma + beta.
///
/// The first term p takes a subtraction, an addition of eps (which halves under the root), one over a root and two
/// products: 3.5 U and the root's allowance of p. Adding beta is a sum of two. A kernel that folds the mean into the
/// shift, x s + (beta - mean s), cancels where the mean is large and is not within this.
pub fn batch_norm(
    shape: [usize; 4],
    x: &[f64],
    (mean, variance): (&[f64], &[f64]),
    (gamma, beta): (&[f64], &[f64]),
    eps: f64,
) -> Expected {
    let mut y = Expected::default();
    for (i, x) in x.iter().enumerate() {
        let c = channel_of(shape, i);
        let scaled = (x - mean[c]) / (variance[c] + eps).sqrt() * gamma[c];
        let sum = Sum::of([scaled, beta[c]]);
        y.push(
            sum.value,
            sum.bound() + (3.5 * U + ONE_OVER_SQRT) * scaled.abs(),
        );
    }
    y
}

/// max(y, 0), or max(y + shortcut, 0): a maximum is no further off than what it is taken of, and a sum adds a rounding.
pub fn activated(y: &Expected, shortcut: Option<&[f64]>) -> Expected {
    let mut activated = Expected::default();
    for (i, (&value, &bound)) in y.value.iter().zip(&y.bound).enumerate() {
        let Some(shortcut) = shortcut else {
            activated.push(rectified(value), bound);
            continue;
        };
        let sum = Sum::of([value, shortcut[i]]);
        activated.push(rectified(sum.value), bound + sum.bound());
    }
    activated
}

/// What both backward passes share.
pub struct Gradients {
    pub dx: Expected,
    pub dgamma: Expected,
    pub dbeta: Expected,
}

/// The relative error of xhat: subtraction, eps, one over a root, product.
const XHAT: f64 = 2.5 * U + ONE_OVER_SQRT;

/// dbeta = sum dy, a sum of m terms; dgamma = sum dy xhat, a sum of m products of which one factor is itself off by
/// XHAT.
fn parameter_gradients(
    shape: [usize; 4],
    dy: &[f64],
    x: &[f64],
    (mean, variance): (&[f64], &[f64]),
    eps: f64,
) -> (Expected, Expected) {
    let (mut dgamma, mut dbeta) = (Expected::default(), Expected::default());
    for c in 0..shape[1] {
        let deviation = (variance[c] + eps).sqrt();
        let shift = Sum::of(channel(shape, c).map(|i| dy[i]));
        let scale = Sum::of(channel(shape, c).map(|i| dy[i] * (x[i] - mean[c]) / deviation));
        dbeta.push(shift.value, shift.bound());
        dgamma.push(scale.value, scale.bound() + XHAT * scale.magnitude);
    }
    (dgamma, dbeta)
}

/// dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m).
///
/// The bracket is a sum of three, of which the second inherits the error of dbeta, the third those of dgamma and xhat,
/// both with a division and a product; the factor before it has the error of one over a root, eps and two products.
pub fn training_backward(
    shape: [usize; 4],
    dy: &[f64],
    x: &[f64],
    (mean, variance): (&[f64], &[f64]),
    gamma: &[f64],
    eps: f64,
) -> Gradients {
    let (dgamma, dbeta) = parameter_gradients(shape, dy, x, (mean, variance), eps);
    let m = (shape[0] * shape[2] * shape[3]) as f64;
    let mut dx = Expected::default();
    for i in 0..x.len() {
        let c = channel_of(shape, i);
        let deviation = (variance[c] + eps).sqrt();
        let xhat = (x[i] - mean[c]) / deviation;
        let factor = gamma[c] / deviation;
        let bracket = Sum::of([dy[i], -dbeta.value[c] / m, -xhat * dgamma.value[c] / m]);
        let inherited = dbeta.bound[c] / m
            + (DIVISION + U) * (dbeta.value[c] / m).abs()
            + xhat.abs() * dgamma.bound[c] / m
            + (XHAT + DIVISION + 2.0 * U) * (xhat * dgamma.value[c] / m).abs();
        let value = factor * bracket.value;
        let bound =
            factor.abs() * (bracket.bound() + inherited) + (2.5 * U + ONE_OVER_SQRT) * value.abs();
        dx.push(value, bound);
    }
    Gradients { dx, dgamma, dbeta }
}

/// dx = dy gamma / sqrt(variance + eps): one over a root, eps and two products.
pub fn evaluation_backward(
    shape: [usize; 4],
    dy: &[f64],
    x: &[f64],
    (mean, variance): (&[f64], &[f64]),
    gamma: &[f64],
    eps: f64,
) -> Gradients {
    let (dgamma, dbeta) = parameter_gradients(shape, dy, x, (mean, variance), eps);
    let mut dx = Expected::default();
    for (i, dy) in dy.iter().enumerate() {
        let c = channel_of(shape, i);
        let value = dy * gamma[c] / (variance[c] + eps).sqrt();
        dx.push(value, (2.5 * U + ONE_OVER_SQRT) * value.abs());
    }
    Gradients { dx, dgamma, dbeta }
}

/// (1 - momentum) running + momentum factor batch: a sum of two products, whose first has the rounding of 1 - momentum
/// and whose second that of `factor`, a division and a product (1 for the mean, count / (count - 1) for the variance).
pub fn running(running: &[f64], batch: &[f64], momentum: f64, factor: f64) -> Expected {
    let mut moved = Expected::default();
    for (running, batch) in running.iter().zip(batch) {
        let (kept, added) = ((1.0 - momentum) * running, momentum * factor * batch);
        let sum = Sum::of([kept, added]);
        let inherited = U * kept.abs() + (DIVISION + 2.0 * U) * added.abs();
        moved.push(sum.value, sum.bound() + inherited);
    }
    moved
}
