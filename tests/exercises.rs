//! The exercises of `exercises`: their checks, which the solutions pass. The exercises themselves
//! are ignored, since they fail until a reader has solved them:
//!
//! `cargo test --test exercises -- --ignored`

use std::panic::{AssertUnwindSafe, catch_unwind};

use parallax::autograd::Var;
use parallax::device::gpu::{Grid, Kernel};
use parallax::optim::{Decay, Schedule};
use parallax::{Device, Tensor};

#[path = "../src/testing/devices.rs"]
#[allow(dead_code)]
mod devices;

#[path = "../exercises"]
mod exercise {
    pub mod cosine;
    pub mod nt_xent;
    pub mod softmax_backward;
    pub const RELU: &str = include_str!("../exercises/relu.wgsl");
}

#[path = "../exercises/solutions"]
mod solution {
    pub mod cosine;
    pub mod nt_xent;
    pub mod softmax_backward;
    pub const RELU: &str = include_str!("../exercises/solutions/relu.wgsl");
}

/// Fails unless `found` is `expected` up to `tolerance`, relative to numbers above 1.
fn check(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(
        error <= tolerance,
        "{what} is {found}; expected {expected}, within {tolerance}"
    );
}

fn check_cosine(learning_rate: impl Fn(f64, u64, u64, u64) -> f64) {
    for (warmup, total) in [(0, 8), (3, 20), (10, 11)] {
        let schedule = Schedule {
            warmup,
            decay: Decay::Cosine { total },
        };
        for step in 0..=total {
            let found = learning_rate(0.5, step, warmup, total);
            let expected = f64::from(schedule.learning_rate(0.5, step));
            let what = format!("the rate of step {step} of {total}, warm-up {warmup},");
            check(&what, found, expected, 1e-6);
        }
    }
}

/// Numbers from -2 to 2 without a pattern.
fn numbers(count: usize) -> Vec<f64> {
    let number = |i: usize| ((i as f64 + 1.0) * 12.9898).sin() * 43758.5453;
    (0..count).map(|i| 2.0 * number(i).fract()).collect()
}

fn check_nt_xent(nt_xent: impl Fn(&[Vec<f64>], f64) -> f64) {
    // Two images whose views are equal, and at a right angle to the other image's: each row has one
    // similarity of 1 and two of 0.
    let [a, b] = [vec![1.0, 0.0], vec![0.0, 1.0]];
    let z = [a.clone(), b.clone(), a, b];
    let expected = (1f64.exp() + 2.0).ln() - 1.0;
    check("the loss of two pairs", nt_xent(&z, 1.0), expected, 1e-9);
    // exp(1 / 0.001) is infinite.
    check(
        "the loss at a low temperature",
        nt_xent(&z, 1e-3),
        0.0,
        1e-9,
    );
    // Against the library.
    let (rows, columns) = (10, 7);
    let mut z: Vec<Vec<f64>> = numbers(rows * columns)
        .chunks(columns)
        .map(<[f64]>::to_vec)
        .collect();
    for row in &mut z {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    let flat: Vec<f32> = z.iter().flatten().map(|&x| x as f32).collect();
    let tensor = Tensor::from_slice(&flat, &[rows, columns], &Device::cpu()).unwrap();
    for temperature in [0.1, 0.5, 2.0] {
        let loss = Var::from(tensor.clone())
            .nt_xent(temperature as f32)
            .unwrap();
        let expected = f64::from(loss.tensor().to_vec::<f32>().unwrap()[0]);
        let what = format!("the loss of ten rows at temperature {temperature}");
        check(&what, nt_xent(&z, temperature), expected, 1e-5);
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let sum: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / sum).collect()
}

/// Against central differences of the loss `sum of dp_i p_i`.
fn check_softmax_backward(softmax_backward: impl Fn(&[f64], &[f64]) -> Vec<f64>) {
    const STEP: f64 = 1e-5;
    for count in [1, 2, 5] {
        let (x, dp) = (numbers(count), numbers(2 * count)[count..].to_vec());
        let found = softmax_backward(&softmax(&x), &dp);
        assert_eq!(found.len(), count, "the gradient has as many numbers as x");
        for i in 0..count {
            let loss = |change: f64| -> f64 {
                let mut x = x.clone();
                x[i] += change;
                softmax(&x).iter().zip(&dp).map(|(p, dp)| p * dp).sum()
            };
            let expected = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            let what = format!("dx[{i}] of {count} for x = {x:?} and dp = {dp:?}");
            check(&what, found[i], expected, 1e-8);
        }
    }
}

/// On the GPU under test. The elements after the end of a tensor belong to other tensors.
fn check_relu(wgsl: &str) {
    let device = devices::gpu(false);
    let gpu = device.as_gpu().expect("it is a GPU");
    // The GPU keeps the kernels that it has compiled, so they have to live as long.
    let kernels: [(&str, &'static Kernel); 2] = ["relu", "relu_backward"].map(|name| {
        let kernel = Kernel::new(name, wgsl);
        let kernel = kernel.unwrap_or_else(|error| panic!("exercises/relu.wgsl: {error}"));
        (name, &*Box::leak(Box::new(kernel)))
    });
    for count in [1, 64, 100] {
        let values = |numbers: &[f64]| -> Vec<f32> { numbers.iter().map(|&x| x as f32).collect() };
        let (x, dy) = (
            values(&numbers(count)),
            values(&numbers(2 * count)[count..]),
        );
        let tensor = |values: &[f32]| Tensor::from_slice(values, &[count], &device).unwrap();
        let (x_there, dy_there) = (tensor(&x), tensor(&dy));
        for (name, kernel) in kernels {
            let y = gpu.floats(&[count]).unwrap();
            let launch = gpu.launch(kernel).elements(count);
            let launch = launch.read("x", &x_there, 1).write("y", &y, 1);
            let launch = match name {
                "relu" => launch,
                _ => launch.read("dy", &dy_there, 1),
            };
            launch
                .run(|slice| ([slice.rows as u32], Grid::Invocations(slice.rows)))
                .unwrap();
            let found = y.to_vec::<f32>().unwrap();
            for i in 0..count {
                let passed = if name == "relu" { x[i] } else { dy[i] };
                let expected = if x[i] > 0.0 { passed } else { 0.0 };
                assert_eq!(
                    found[i], expected,
                    "{name}: y[{i}] of {count} for x = {} and dy = {}",
                    x[i], dy[i]
                );
            }
        }
    }
}

#[test]
#[ignore = "an exercise: exercises/cosine.rs"]
fn cosine() {
    check_cosine(exercise::cosine::learning_rate);
}

#[test]
#[ignore = "an exercise: exercises/nt_xent.rs"]
fn nt_xent() {
    check_nt_xent(exercise::nt_xent::nt_xent);
}

#[test]
#[ignore = "an exercise: exercises/softmax_backward.rs"]
fn softmax_backward() {
    check_softmax_backward(exercise::softmax_backward::softmax_backward);
}

#[test]
#[ignore = "an exercise: exercises/relu.wgsl"]
fn relu() {
    check_relu(exercise::RELU);
}

#[test]
fn every_exercise_can_be_solved() {
    check_cosine(solution::cosine::learning_rate);
    check_nt_xent(solution::nt_xent::nt_xent);
    check_softmax_backward(solution::softmax_backward::softmax_backward);
    check_relu(solution::RELU);
}

/// Each check with a mistake that a reader may make.
#[test]
fn a_wrong_answer_fails() {
    fn fails(check: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(check)).is_err());
    }
    // Steps counted from the start of the training, and a warm-up that starts at 0.
    fails(|| {
        check_cosine(|base, step, _, total| solution::cosine::learning_rate(base, step, 0, total))
    });
    fails(|| {
        check_cosine(|base, step, warmup, total| match step < warmup {
            true => base * step as f64 / warmup as f64,
            false => solution::cosine::learning_rate(base, step, warmup, total),
        })
    });
    // The loss by chance.
    fails(|| check_nt_xent(|z, _| ((z.len() - 1) as f64).ln()));
    fails(|| check_nt_xent(|z, _| solution::nt_xent::nt_xent(z, 1.0)));
    // Without the terms of the other elements.
    fails(|| {
        check_softmax_backward(|p, dp| {
            let own = p.iter().zip(dp).map(|(p, dp)| p * (1.0 - p) * dp);
            own.collect()
        })
    });
    fails(|| check_softmax_backward(|_, _| Vec::new()));
    // A leaky ReLU, and a gradient that ignores x.
    for (right, wrong) in [
        ("max(x[i], 0.0)", "max(x[i], 0.01 * x[i])"),
        ("select(0.0, dy[i], x[i] > 0.0)", "dy[i] + 0.0 * x[i]"),
    ] {
        let wgsl = solution::RELU.replace(right, wrong);
        assert_ne!(wgsl, solution::RELU);
        fails(|| check_relu(&wgsl));
    }
}
