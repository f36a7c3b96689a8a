//! Cross-entropy against float64.

use super::{CrossEntropy, CrossEntropyBackward};
use crate::Tensor;
use crate::philox::Philox;
use crate::testing::accuracy::{self, DIVISION, U};
use crate::testing::{
    Expected, Sum, agree, check_gradients, check_reference, devices, get, narrow, normal,
    normal_leaf, numbers, put, put_u32, random, refused, same_bits, wide, zeros, zeros_u32,
};

/// The gradient of the loss. It is not 1, as if the loss were not the last operation.
const DLOSS: f32 = -1.7;

/// Returns the loss and the log-sum-exp of each row.
///
/// The loss of a row is its log-sum-exp minus one logit: the error of the first, and four roundings
/// of numbers of their size. The mean is a sum of N terms and a division.
fn cross_entropy(classes: usize, logits: &[f64], labels: &[u32]) -> (Expected, Expected) {
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
fn cross_entropy_backward(
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

#[test]
fn the_reference_has_the_gradient_of_its_forward_pass() {
    let (logits, labels) = (numbers(116, 20), [3, 0, 4, 3]);
    let loss = |x: &[f64]| cross_entropy(5, x, &labels);
    let lse = loss(&logits).1.value;
    let dlogits = cross_entropy_backward(5, -1.7, &logits, &labels, &lse);
    check_reference("dlogits", &logits, &dlogits.value, |x| {
        -1.7 * loss(x).0.value[0]
    });
}

fn check_agreement([rows, classes]: [usize; 2], logits: &[f32], labels: &[u32]) {
    let (loss, lse) = cross_entropy(classes, &wide(logits), labels);
    let lse32 = narrow(&lse.value);
    let dloss = f64::from(DLOSS);
    let dlogits = cross_entropy_backward(classes, dloss, &wide(logits), labels, &wide(&lse32));
    let shape = [rows, classes];
    for (name, device) in devices::all() {
        let case = format!("of {shape:?} on {name}");
        let logits = &put(&device, logits, &shape);
        let labels = &put_u32(&device, labels, &[rows]);
        let forward = device.run(CrossEntropy { logits, labels }).expect(name);
        let found = &forward.log_sum_exp;
        agree(&format!("log-sum-exp {case}"), found, &[rows], &lse);
        agree(&format!("loss {case}"), &forward.loss, &[1], &loss);
        let back = device.run(CrossEntropyBackward {
            dloss: &put(&device, &[DLOSS], &[1]),
            logits,
            labels,
            log_sum_exp: &put(&device, &lse32, &[rows]),
        });
        let case = format!("dlogits {case}");
        agree(&case, &back.expect(name), &shape, &dlogits);
    }
}

fn random_labels(rng: &mut Philox, rows: usize, classes: usize) -> Vec<u32> {
    (0..rows).map(|_| rng.below(classes as u32)).collect()
}

#[test]
fn agreement_with_float64() {
    let mut rng = random(61);
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
        check_agreement(shape, &logits, &labels);
    }
}

#[test]
fn logits_between_minus_80_and_80() {
    let mut rng = random(62);
    for shape in [[7, 2], [65, 10], [33, 129]] {
        let logits: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| [-80.0, 80.0, 79.5, 0.0][rng.below(4) as usize])
            .collect();
        let labels = random_labels(&mut rng, shape[0], shape[1]);
        check_agreement(shape, &logits, &labels);
    }
}

#[test]
fn a_label_out_of_range_makes_the_loss_nan() {
    let logits = normal(&mut random(63), 65 * 10);
    for (row, label) in [(0, 10), (64, u32::MAX), (33, 11)] {
        let mut labels = vec![9; 65];
        labels[row] = label;
        for (name, device) in devices::all() {
            let logits = &put(&device, &logits, &[65, 10]);
            let labels = &put_u32(&device, &labels, &[65]);
            let forward = device.run(CrossEntropy { logits, labels }).expect(name);
            let loss = get(&forward.loss)[0];
            assert!(
                loss.is_nan(),
                "label {label} in row {row} on {name}: {loss}"
            );
        }
    }
}

#[test]
fn gradients() {
    check_gradients("cross_entropy", &[normal_leaf(1, &[5, 7])], |x| {
        let labels = Tensor::from_slice(&[6u32, 0, 3, 3, 1], &[5], &x[0].device())?;
        x[0].cross_entropy(&labels)
    });
}

#[test]
fn results_are_deterministic() {
    let classes: Vec<u32> = (0..301).map(|i| i % 65).collect();
    same_bits(devices::all(), |device| {
        let logits = &put(device, &normal(&mut random(90), 301 * 65), &[301, 65]);
        let labels = &put_u32(device, &classes, &[301]);
        let forward = device
            .run(CrossEntropy { logits, labels })
            .expect("the loss");
        let back = device.run(CrossEntropyBackward {
            dloss: &put(device, &[DLOSS], &[1]),
            logits,
            labels,
            log_sum_exp: &forward.log_sum_exp,
        });
        [
            ("loss", forward.loss),
            ("log-sum-exp", forward.log_sum_exp),
            ("dlogits", back.expect("dlogits")),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (x, labels) = (zeros(&device, &[4, 3]), zeros_u32(&device, &[4]));
        let forward =
            |logits: &Tensor, labels: &Tensor| device.run(CrossEntropy { logits, labels });
        refused(name, "labels", forward(&x, &zeros_u32(&device, &[3])));
        refused(name, "type of labels", forward(&x, &zeros(&device, &[4])));
        refused(
            name,
            "logits",
            forward(&zeros(&device, &[4, 3, 1]), &labels),
        );
        refused(
            name,
            "type of logits",
            forward(&zeros_u32(&device, &[4, 3]), &labels),
        );
        // A mean over no rows and a sum over no classes have no value.
        refused(
            name,
            "no rows",
            forward(&zeros(&device, &[0, 3]), &zeros_u32(&device, &[0])),
        );
        refused(
            name,
            "no classes",
            forward(&zeros(&device, &[3, 0]), &zeros_u32(&device, &[3])),
        );
        let backward = |dloss: usize, labels: &Tensor, rows: usize| {
            device.run(CrossEntropyBackward {
                dloss: &zeros(&device, &[dloss]),
                logits: &x,
                labels,
                log_sum_exp: &zeros(&device, &[rows]),
            })
        };
        refused(name, "dloss", backward(2, &labels, 4));
        refused(
            name,
            "labels of the backward pass",
            backward(1, &zeros_u32(&device, &[5]), 4),
        );
        refused(name, "log-sum-exp", backward(1, &labels, 3));
        backward(1, &labels, 4).expect("arguments that fit");
    }
}
