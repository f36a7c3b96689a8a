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
fn the_check_sees_a_gradient_that_is_a_hundred_thousandth_off() {
    let x = numbers(100, 5);
    let gradient: Vec<f64> = x.iter().map(|x| 2.0 * x * 1.00001).collect();
    assert!(deviation(&x, &gradient, |x| dot(x, x)) > TOLERANCE);
}

#[test]
fn conv2d_gradients() {
    let conv = Conv2d {
        stride: 2,
        padding: 1,
    };
    let g = shapes::conv2d("test", [2, 3, 5, 6], [4, 3, 3, 3], conv).expect("a case that fits");
    let (x, w) = (numbers(101, 180), numbers(102, 108));
    let dy = numbers(103, g.y_shape().iter().product());
    let dx = conv2d::conv2d_dx(&g, &dy, &w).value;
    check("dx", &x, &dx, |x| {
        dot(&dy, &conv2d::conv2d(&g, x, &w).value)
    });
    let dw = conv2d::conv2d_dw(&g, &dy, &x).value;
    check("dw", &w, &dw, |w| {
        dot(&dy, &conv2d::conv2d(&g, &x, w).value)
    });
}

#[test]
fn linear_is_a_product_with_a_transposed_weight() {
    let (x, w, bias) = (numbers(104, 15), numbers(105, 20), numbers(106, 4));
    let options = Gemm {
        transpose_a: false,
        transpose_b: true,
    };
    let product = gemm::gemm(options, [3, 4, 5], &x, &w).value;
    let expected: Vec<f64> = (0..12).map(|i| product[i] + bias[i % 4]).collect();
    assert_eq!(gemm::linear([3, 5, 4], &x, &w, &bias).value, expected);
    // The gradient of x is dy w, that of w is dy^T x.
    let dy = numbers(107, 12);
    let dx = gemm::gemm(Gemm::default(), [3, 5, 4], &dy, &w).value;
    check("dx", &x, &dx, |x| {
        dot(&dy, &gemm::linear([3, 5, 4], x, &w, &bias).value)
    });
    let options = Gemm {
        transpose_a: true,
        transpose_b: false,
    };
    let dw = gemm::gemm(options, [4, 5, 3], &dy, &x).value;
    check("dw", &w, &dw, |w| {
        dot(&dy, &gemm::linear([3, 5, 4], &x, w, &bias).value)
    });
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
fn pool_gradients() {
    let (shape, window) = ([2, 2, 5, 4], [3, 2]);
    let pool = Pool2d {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let (x, dy) = (numbers(112, 80), numbers(113, 24));
    let (_, argmax) = pool::max_pool2d(shape, window, pool, &x);
    let dx = pool::max_pool2d_backward(shape, window, &dy, &argmax).value;
    check("max", &x, &dx, |x| {
        dot(&dy, &pool::max_pool2d(shape, window, pool, x).0.value)
    });
    let dx = pool::global_average_pool_backward(20, &dy[..4]).value;
    check("average", &x, &dx, |x| {
        dot(&dy[..4], &pool::global_average_pool(20, x).value)
    });
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
