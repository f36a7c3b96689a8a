//! Softmax cross-entropy with labels as indices.

use super::accuracy::{self, DIVISION, U};
use super::{Expected, Sum};

/// (loss, log-sum-exp of each row). A row's loss is its log-sum-exp less one logit: the error of the first and four
/// roundings of their size. The mean is a sum of N terms and a division.
pub fn softmax_cross_entropy(
    classes: usize,
    logits: &[f64],
    labels: &[u32],
) -> (Expected, Expected) {
    let (mut lse, mut rows) = (Expected::default(), Vec::new());
    let mut inherited = 0.0;
    for (row, &label) in logits.chunks(classes).zip(labels) {
        let (value, bound) = accuracy::log_sum_exp(row, &vec![0.0; classes]);
        let own = row.get(label as usize).copied().unwrap_or(f64::NAN);
        rows.push(value - own);
        let max = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        inherited += bound + 4.0 * U * (value.abs() + own.abs() + max.abs());
        lse.push(value, bound);
    }
    let n = rows.len() as f64;
    let sum = Sum::of(rows);
    let mut loss = Expected::default();
    let mean = sum.value / n;
    loss.push(mean, (sum.bound() + inherited) / n + DIVISION * mean.abs());
    (loss, lse)
}

/// dlogits = dloss (softmax - one_hot) / N with softmax = exp(logit - lse). The exponent is off by a rounding, exp by
/// its allowance; the difference is a sum of two; a division and a product follow.
pub fn softmax_cross_entropy_backward(
    classes: usize,
    dloss: f64,
    logits: &[f64],
    labels: &[u32],
    lse: &[f64],
) -> Expected {
    let n = labels.len() as f64;
    let mut dlogits = Expected::default();
    for ((row, &label), &lse) in logits.chunks(classes).zip(labels).zip(lse) {
        for (class, logit) in row.iter().enumerate() {
            let exponent = logit - lse;
            let softmax = exponent.exp();
            let one_hot = f64::from(u8::from(class == label as usize));
            let difference = Sum::of([softmax, -one_hot]);
            let inherited = (U * exponent.abs() + accuracy::exp(exponent)) * softmax;
            let value = dloss * difference.value / n;
            let bound = dloss.abs() / n * (difference.bound() + inherited)
                + (DIVISION + 2.0 * U) * value.abs();
            dlogits.push(value, bound);
        }
    }
    dlogits
}
