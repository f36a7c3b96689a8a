//! The references' own check: each float64 gradient against central differences of the float64 forward pass.

use parallax::device::kernels::Gemm;
use parallax::device::shapes::{self, Conv2d, Pool2d};

use crate::compare::{normal, random, wide};
use crate::reference::{conv2d, gemm, pool};

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
