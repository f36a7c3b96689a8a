//! Batch norm in float64, with error bounds.

use super::Statistics;
use crate::testing::accuracy::{DIVISION, ONE_OVER_SQRT, U};
use crate::testing::{Expected, Sum};

pub(super) const EPS: f32 = 1e-5;

/// The elements of channel `c`, image by image.
pub(super) fn channel(
    [n, channels, h, w]: [usize; 4],
    c: usize,
) -> impl Iterator<Item = usize> + Clone {
    let plane = h * w;
    (0..n).flat_map(move |i| {
        let start = (i * channels + c) * plane;
        start..start + plane
    })
}

/// The channel of element `i`.
pub(super) fn channel_of([_, channels, h, w]: [usize; 4], i: usize) -> usize {
    i / (h * w) % channels
}

/// Returns mean and biased variance.
///
/// The mean is a sum of m terms divided by m; its bound is e. The variance is the sum of squares of
/// centred elements. As a sum of m products, its error is up to 4 sqrt(m) U of its value, and three
/// roundings per element. Centring with a mean that has the error e adds e^2. Also, the centred
/// numbers, or the means of parts that are merged, have a rounding error of the size of x. By
/// Cauchy and Schwarz, each such rounding changes the variance by up to 2 std U rms(x); four are
/// allowed. A difference of mean squares has the much larger error U rms(x)^2 and fails.
pub(super) fn statistics(shape: [usize; 4], x: &[f64]) -> (Expected, Expected) {
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

/// The numbers of a norm in float64, one per channel.
#[derive(Clone)]
pub(super) struct Norm64 {
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
    pub(super) gamma: Vec<f64>,
    pub(super) beta: Vec<f64>,
    pub(super) eps: f64,
}

/// Returns `y = (x - mean) / sqrt(variance + eps) gamma + beta`.
///
/// The first term has a subtraction, an addition of eps (half of it after the root), one over a
/// root and two products: 3.5 U and the allowance of the root. Adding beta is a sum of two terms. A
/// kernel that moves the mean into the shift, `x s + (beta - mean s)`, cancels if the mean is
/// large, and fails.
pub(super) fn batch_norm(shape: [usize; 4], x: &[f64], norm: &Norm64) -> Expected {
    let mut y = Expected::default();
    for (i, x) in x.iter().enumerate() {
        let c = channel_of(shape, i);
        let deviation = (norm.variance[c] + norm.eps).sqrt();
        let scaled = (x - norm.mean[c]) / deviation * norm.gamma[c];
        let sum = Sum::of([scaled, norm.beta[c]]);
        y.push(
            sum.value,
            sum.bound() + (3.5 * U + ONE_OVER_SQRT) * scaled.abs(),
        );
    }
    y
}

/// Returns `max(y, 0)`, or `max(y + shortcut, 0)`. A maximum has the error of its argument, and a
/// sum adds a rounding.
pub(super) fn activated(y: &Expected, shortcut: Option<&[f64]>) -> Expected {
    let mut activated = Expected::default();
    for (i, (&value, &bound)) in y.value.iter().zip(&y.bound).enumerate() {
        let Some(shortcut) = shortcut else {
            activated.push(value.max(0.0), bound);
            continue;
        };
        let sum = Sum::of([value, shortcut[i]]);
        activated.push(sum.value.max(0.0), bound + sum.bound());
    }
    activated
}

pub(super) struct Gradients {
    pub(super) dx: Expected,
    pub(super) dgamma: Expected,
    pub(super) dbeta: Expected,
}

/// The relative error of xhat: subtraction, eps, one over a root, product.
pub(super) const XHAT: f64 = 2.5 * U + ONE_OVER_SQRT;

/// Returns the gradients for `dy` of a result without activation.
///
/// `dbeta = sum dy` is a sum of m terms. `dgamma = sum dy xhat` is a sum of m products, and one
/// factor of each has the error `XHAT`.
///
/// `dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m)` in training: the bracket
/// is a sum of three terms. The second has the error of dbeta, the third has the errors of dgamma
/// and xhat, and both have a division and a product. In evaluation, the bracket is `dy`. The factor
/// before it has one over a root, eps and two products.
pub(super) fn backward(
    shape: [usize; 4],
    dy: &[f64],
    x: &[f64],
    norm: &Norm64,
    statistics: Statistics,
) -> Gradients {
    let m = (shape[0] * shape[2] * shape[3]) as f64;
    let deviation = |c: usize| (norm.variance[c] + norm.eps).sqrt();
    let xhat = |i: usize, c: usize| (x[i] - norm.mean[c]) / deviation(c);
    let (mut dgamma, mut dbeta) = (Expected::default(), Expected::default());
    for c in 0..shape[1] {
        let shift = Sum::of(channel(shape, c).map(|i| dy[i]));
        let scale = Sum::of(channel(shape, c).map(|i| dy[i] * xhat(i, c)));
        dbeta.push(shift.value, shift.bound());
        dgamma.push(scale.value, scale.bound() + XHAT * scale.magnitude);
    }
    let mut dx = Expected::default();
    for (i, &dy) in dy.iter().enumerate() {
        let c = channel_of(shape, i);
        let factor = norm.gamma[c] / deviation(c);
        let (bracket, bracket_bound) = match statistics {
            Statistics::OfTheBatch => {
                let (a, b) = (dbeta.value[c] / m, xhat(i, c) * dgamma.value[c] / m);
                let bracket = Sum::of([dy, -a, -b]);
                let inherited = dbeta.bound[c] / m
                    + (DIVISION + U) * a.abs()
                    + xhat(i, c).abs() * dgamma.bound[c] / m
                    + (XHAT + DIVISION + 2.0 * U) * b.abs();
                (bracket.value, bracket.bound() + inherited)
            }
            Statistics::Constant => (dy, 0.0),
        };
        let value = factor * bracket;
        let bound = factor.abs() * bracket_bound + (2.5 * U + ONE_OVER_SQRT) * value.abs();
        dx.push(value, bound);
    }
    Gradients { dx, dgamma, dbeta }
}

/// Returns `(1 - momentum) running + momentum factor batch`.
///
/// A sum of two products. The first has the rounding of 1 - momentum. The second has the errors of
/// `factor` (1 for the mean, count / (count - 1) for the variance): a division and a product.
pub(super) fn running(running: &[f64], batch: &[f64], momentum: f64, factor: f64) -> Expected {
    let mut moved = Expected::default();
    for (running, batch) in running.iter().zip(batch) {
        let (kept, added) = ((1.0 - momentum) * running, momentum * factor * batch);
        let sum = Sum::of([kept, added]);
        let inherited = U * kept.abs() + (DIVISION + 2.0 * U) * added.abs();
        moved.push(sum.value, sum.bound() + inherited);
    }
    moved
}
