//! Cross-entropy against float64.

use super::{CrossEntropy, CrossEntropyBackward};
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::Tensor;
use crate::testing::accuracy::{self, DIVISION, U};
use crate::testing::{Expected, Sum, Tester, narrow, normal, normal_leaf, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    agreement_with_float64(tester)?;
    logits_between_minus_80_and_80(tester)?;
    a_label_out_of_range_makes_the_loss_nan(tester)?;
    gradients(tester)
}

/// The gradient of the loss. It is not 1, as if the loss were not the last operation.
pub(super) const DLOSS: f32 = -1.7;

/// Returns the loss and the log-sum-exp of each row.
///
/// The loss of a row is its log-sum-exp minus one logit: the error of the first, and four roundings
/// of numbers of their size. The mean is a sum of N terms and a division.
pub(super) fn cross_entropy(
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

/// Returns `dlogits = dloss (softmax - one_hot) / N` with `softmax = exp(logit - lse)`.
///
/// The exponent has a rounding, and exp has its allowance. The difference is a sum of two terms. A
/// division and a product follow.
pub(super) fn cross_entropy_backward(
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

fn check_agreement(
    tester: &Tester,
    [rows, classes]: [usize; 2],
    logits: &[f32],
    labels: &[u32],
) -> Result<()> {
    let (loss, lse) = cross_entropy(classes, &wide(logits), labels);
    let lse32 = narrow(&lse.value);
    let dloss = f64::from(DLOSS);
    let dlogits = cross_entropy_backward(classes, dloss, &wide(logits), labels, &wide(&lse32));
    let shape = [rows, classes];
    for on in tester.all() {
        let case = format!("of {shape:?}");
        let logits = &on.put(logits, &shape)?;
        let labels = &on.put(labels, &[rows])?;
        let forward = on.run(CrossEntropy { logits, labels })?;
        let found = &forward.log_sum_exp;
        on.agree(&format!("log-sum-exp {case}"), found, &[rows], &lse)?;
        on.agree(&format!("loss {case}"), &forward.loss, &[1], &loss)?;
        let back = on.run(CrossEntropyBackward {
            dloss: &on.put(&[DLOSS], &[1])?,
            logits,
            labels,
            log_sum_exp: &on.put(&lse32, &[rows])?,
        });
        let case = format!("dlogits {case}");
        on.agree(&case, &back?, &shape, &dlogits)?;
    }
    Ok(())
}

fn random_labels(rng: &mut Philox, rows: usize, classes: usize) -> Vec<u32> {
    (0..rows).map(|_| rng.below(classes as u32)).collect()
}

fn agreement_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(61);
    let shapes = [
        [1, 1],
        [1, 10],
        [3, 5],
        [65, 17],
        [257, 10],
        [64, 1000],
        [130, 129],
        [5, 3],
        [300, 100],
        [1, 257],
    ];
    for shape in shapes {
        let logits = normal(&mut rng, shape[0] * shape[1]);
        let labels = random_labels(&mut rng, shape[0], shape[1]);
        check_agreement(tester, shape, &logits, &labels)?;
    }
    Ok(())
}

fn logits_between_minus_80_and_80(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(62);
    for shape in [[7, 2], [65, 10], [33, 129]] {
        let logits: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| [-80.0, 80.0, 79.5, 0.0][rng.below(4) as usize])
            .collect();
        let labels = random_labels(&mut rng, shape[0], shape[1]);
        check_agreement(tester, shape, &logits, &labels)?;
    }
    Ok(())
}

fn a_label_out_of_range_makes_the_loss_nan(tester: &Tester) -> Result<()> {
    let logits = normal(&mut tester.random(63), 65 * 10);
    for (row, label) in [(0, 10), (64, u32::MAX), (33, 11)] {
        let mut labels = vec![9; 65];
        labels[row] = label;
        for on in tester.all() {
            let logits = &on.put(&logits, &[65, 10])?;
            let labels = &on.put(&labels, &[65])?;
            let forward = on.run(CrossEntropy { logits, labels })?;
            let case = format!("of label {label} in row {row}");
            let nan = Expected::exact(vec![f64::NAN]);
            on.agree(&case, &forward.loss, &[1], &nan)?;
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    tester.gradients("cross_entropy", &[normal_leaf(1, &[5, 7])], |x| {
        let labels = Tensor::from_slice(&[6u32, 0, 3, 3, 1], &[5], &x[0].device())?;
        x[0].cross_entropy(&labels)
    })?;
    Ok(())
}
