//! The references' own check: each float64 gradient against central differences of the float64 forward pass.

use parallax::device::kernels::Gemm;
use parallax::device::shapes::{self, Conv2d, Pool2d};

use crate::compare::{normal, random, wide};
use crate::reference::{
    batch_norm, conv2d, gemm, l2_normalize, nt_xent, pool, softmax_cross_entropy,
};

const TOLERANCE: f64 = 1e-6;

/// The relative norm of the difference between `gradient` and central differences of `f` at `x`.
fn deviation(x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) -> f64 {
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

fn check(what: &str, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    let deviation = deviation(x, gradient, f);
    assert!(deviation < TOLERANCE, "{what}: {deviation:e}");
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn numbers(stream: u32, count: usize) -> Vec<f64> {
    wide(&normal(&mut random(stream), count))
}

#[test]
fn batch_norm_gradients() {
    let (shape, eps) = ([3, 2, 2, 3], 1e-3);
    let (x, dy) = (numbers(108, 36), numbers(109, 36));
    let (gamma, beta) = (numbers(110, 2), numbers(111, 2));
    let statistics = |x: &[f64]| {
        let (mean, variance) = batch_norm::statistics(shape, x);
        (mean.value, variance.value)
    };
    let (mean, variance) = statistics(&x);
    let loss = |x: &[f64], mean: &[f64], variance: &[f64], gamma: &[f64], beta: &[f64]| {
        let y = batch_norm::batch_norm(shape, x, (mean, variance), (gamma, beta), eps);
        dot(&dy, &y.value)
    };
    let training = batch_norm::training_backward(shape, &dy, &x, (&mean, &variance), &gamma, eps);
    check("training dx", &x, &training.dx.value, |x| {
        let (mean, variance) = statistics(x);
        loss(x, &mean, &variance, &gamma, &beta)
    });
    let evaluation =
        batch_norm::evaluation_backward(shape, &dy, &x, (&mean, &variance), &gamma, eps);
    check("evaluation dx", &x, &evaluation.dx.value, |x| {
        loss(x, &mean, &variance, &gamma, &beta)
    });
    for gradients in [training, evaluation] {
        check("dgamma", &gamma, &gradients.dgamma.value, |gamma| {
            loss(&x, &mean, &variance, gamma, &beta)
        });
        check("dbeta", &beta, &gradients.dbeta.value, |beta| {
            loss(&x, &mean, &variance, &gamma, beta)
        });
    }
}

#[test]
fn l2_normalize_gradients() {
    let (x, dy) = (numbers(114, 21), numbers(115, 21));
    // Under the second eps every row is short.
    for eps in [1e-12, 100.0] {
        let (y, norm) = l2_normalize::l2_normalize(7, &x, eps);
        let dx = l2_normalize::l2_normalize_backward(7, &dy, &y.value, &norm.value, eps).value;
        check("dx", &x, &dx, |x| {
            dot(&dy, &l2_normalize::l2_normalize(7, x, eps).0.value)
        });
    }
}

#[test]
fn softmax_cross_entropy_gradient() {
    let (logits, labels) = (numbers(116, 20), [3, 0, 4, 3]);
    let loss = |x: &[f64]| softmax_cross_entropy::softmax_cross_entropy(5, x, &labels);
    let lse = loss(&logits).1.value;
    let dlogits =
        softmax_cross_entropy::softmax_cross_entropy_backward(5, -1.7, &logits, &labels, &lse);
    check("dlogits", &logits, &dlogits.value, |x| {
        -1.7 * loss(x).0.value[0]
    });
}

#[test]
fn nt_xent_gradient() {
    let z = numbers(117, 8 * 5);
    for temperature in [0.2, 1.0] {
        let loss = |z: &[f64]| nt_xent::nt_xent(5, z, temperature);
        let lse = loss(&z).1.value;
        let dz = nt_xent::nt_xent_backward(5, -1.7, &z, temperature, &lse).value;
        check("dz", &z, &dz, |z| -1.7 * loss(z).0.value[0]);
    }
}
