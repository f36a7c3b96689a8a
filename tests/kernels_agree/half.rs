//! The kernels whose activations may be f16, on every device, against the same float64 loops on inputs that are f16
//! numbers. What is stored as f16 may be off by what the f32 arithmetic before it allows, and by the one rounding.

use half::f16;
use parallax::device::Device;
use parallax::device::kernels::{Activation, BatchStatistics, ChannelNorm};
use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Conv2d, Pool2d};
use parallax::tensor::{DType, Tensor};

use crate::compare::{agree, get, get_u32, narrow, normal, put, put_u32, random, wide};
use crate::reference::Expected;
use crate::{devices, reference};

const EPS: f32 = 1e-5;

/// The nearest f16 numbers, as f32.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| f16::from_f32(x).to_f32()).collect()
}

/// Standard normal numbers that f16 has.
fn normal16(rng: &mut Philox, count: usize) -> Vec<f32> {
    rounded(&normal(rng, count))
}

/// Numbers that f16 has, as a tensor of them.
fn put16(device: &Device, x: &[f32], shape: &[usize]) -> Tensor {
    let y = device.cast(&put(device, x, shape), DType::F16);
    y.expect("the cast of a test's input")
}

/// The elements of a tensor that must be f16.
fn get16(device: &Device, x: &Tensor) -> Vec<f32> {
    assert_eq!(x.dtype(), DType::F16);
    get(
        device,
        &device.cast(x, DType::F32).expect("the cast of a result"),
    )
}

/// As [`agree`], where the result must be f16.
fn agree16(case: &str, device: &Device, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.dtype(), DType::F16, "{case}");
    let x = device.cast(x, DType::F32).expect(case);
    agree(case, device, &x, shape, &expected.clone().stored_as_f16());
}

const BATCHES: [[usize; 4]; 11] = [
    [1, 1, 1, 2],
    [2, 1, 1, 1],
    [1, 3, 5, 7],
    [4, 17, 3, 3],
    [129, 5, 3, 3],
    [257, 2, 1, 1],
    [3, 3, 65, 63],
    [64, 17, 9, 9],
    // Planes of whole eights.
    [5, 19, 4, 6],
    [1, 1, 2, 4],
    [21, 3, 32, 32],
];

#[test]
fn batch_norm_and_its_gradients() {
    let mut rng = random(84);
    let eps = f64::from(EPS);
    for shape in BATCHES {
        let count = shape.iter().product();
        let c = [shape[1]];
        let x = normal16(&mut rng, count);
        let shortcut = normal16(&mut rng, count);
        let [gamma, beta] = std::array::from_fn(|_| normal(&mut rng, shape[1]));
        let (mean_expected, variance_expected) =
            reference::batch_norm::statistics(shape, &wide(&x));
        let mean = narrow(&mean_expected.value);
        let variance = narrow(&variance_expected.value);
        let statistics = (&wide(&mean)[..], &wide(&variance)[..]);
        let affine = (&wide(&gamma)[..], &wide(&beta)[..]);
        let identity = reference::batch_norm::batch_norm(shape, &wide(&x), statistics, affine, eps);
        let relu = reference::batch_norm::activated(&identity, None);
        let add_relu = reference::batch_norm::activated(&identity, Some(&wide(&shortcut)));
        let mut dy = normal16(&mut rng, count);
        // Where rounding decides on which side of the kink y lies, nothing may depend on it.
        for (i, dy) in dy.iter_mut().enumerate() {
            if identity.value[i].abs() <= identity.bound[i] {
                *dy = 0.0;
            }
        }
        let through = |rectified: bool| -> Vec<f64> {
            let pass = |(i, &dy): (usize, &f32)| match rectified && identity.value[i] <= 0.0 {
                true => 0.0,
                false => f64::from(dy),
            };
            dy.iter().enumerate().map(pass).collect()
        };
        for (name, device) in devices::with_f16(devices::all()) {
            let case = |what: &str| format!("{what} {shape:?} on {name}");
            let norm = ChannelNorm {
                statistics: BatchStatistics {
                    mean: put(&device, &mean, &c),
                    variance: put(&device, &variance, &c),
                },
                gamma: put(&device, &gamma, &c),
                beta: put(&device, &beta, &c),
                eps: EPS,
            };
            let [x16, shortcut16, dy16] = [&x, &shortcut, &dy].map(|x| put16(&device, x, &shape));
            let found = device.batch_norm_statistics(&x16).expect(name);
            agree(&case("mean"), &device, &found.mean, &c, &mean_expected);
            agree(
                &case("variance"),
                &device,
                &found.variance,
                &c,
                &variance_expected,
            );
            for (activation, expected) in [
                (Activation::Identity, &identity),
                (Activation::Relu, &relu),
                (Activation::AddRelu(&shortcut16), &add_relu),
            ] {
                let y = device.batch_norm(&x16, &norm, activation).expect(name);
                let case = case(&format!("batch_norm {activation:?}"));
                agree16(&case, &device, &y, &shape, expected);
            }
            for (training, rectified) in
                [(true, false), (true, true), (false, false), (false, true)]
            {
                let backward = match training {
                    true => reference::batch_norm::training_backward,
                    false => reference::batch_norm::evaluation_backward,
                };
                let dy = through(rectified);
                let expected = backward(shape, &dy, &wide(&x), statistics, affine.0, eps);
                let gradients = match training {
                    true => device.batch_norm_training_backward(&dy16, &x16, &norm, rectified),
                    false => device.batch_norm_evaluation_backward(&dy16, &x16, &norm, rectified),
                }
                .expect(name);
                let case = case(&format!("training {training}, rectified {rectified},"));
                let of_channels = [
                    ("dbeta", &gradients.dbeta, &expected.dbeta),
                    ("dgamma", &gradients.dgamma, &expected.dgamma),
                ];
                for (what, found, expected) in of_channels {
                    agree(&format!("{what}, {case}"), &device, found, &c, expected);
                }
                let what = format!("dx, {case}");
                agree16(&what, &device, &gradients.dx, &shape, &expected.dx);
                if training {
                    let place = device.copy(&x16).expect(name);
                    let there = device
                        .batch_norm_training_backward_in_place(&dy16, &place, &norm, rectified)
                        .expect(name);
                    assert_eq!(there.dx.id(), place.id(), "{what}");
                    let [there, apart] = [&place, &gradients.dx].map(|x| get16(&device, x));
                    assert!(there == apart, "in place of x: {what}");
                } else {
                    let y =
                        rectified.then(|| put16(&device, &rounded(&narrow(&relu.value)), &shape));
                    // A result so small that it is rounded to zero does not pass; it is no result of these inputs.
                    let dx = device.batch_norm_evaluation_dx(&dy16, &norm, y.as_ref());
                    let what = format!("dx alone, {case}");
                    agree16(&what, &device, &dx.expect(name), &shape, &expected.dx);
                }
            }
        }
    }
}

/// An argument of the other type, or a kernel that has no f16, is refused by a shape error that names the argument.
#[test]
fn types_that_do_not_fit_are_named() {
    let conv = Conv2d {
        stride: 1,
        padding: 1,
    };
    for (name, d) in devices::with_f16(devices::all()) {
        let half = |shape: &[usize]| d.zeros(shape, DType::F16).expect(name);
        let float = |shape: &[usize]| d.zeros(shape, DType::F32).expect(name);
        let shape = [2, 3, 4, 4];
        let (x, x16, w) = (float(&shape), half(&shape), float(&[3, 3, 3, 3]));
        let norm = ChannelNorm {
            statistics: BatchStatistics {
                mean: float(&[3]),
                variance: float(&[3]),
            },
            gamma: float(&[3]),
            beta: float(&[3]),
            eps: EPS,
        };
        let mut half_gamma = norm.clone();
        half_gamma.gamma = half(&[3]);
        let to_u32 = DType::U32;
        for (argument, result) in [
            (
                "shortcut",
                d.batch_norm(&x16, &norm, Activation::AddRelu(&x)),
            ),
            ("gamma", d.batch_norm(&x16, &half_gamma, Activation::Relu)),
            (
                "dy",
                d.batch_norm_training_backward(&x, &x16, &norm, true)
                    .map(|g| g.dx),
            ),
            (
                "dy",
                d.batch_norm_training_backward_in_place(&x, &x16, &norm, true)
                    .map(|g| g.dx),
            ),
        ] {
            let error = result.map(drop).expect_err("the types do not fit");
            let text = error.to_string();
            assert!(matches!(error, parallax::Error::Shape { .. }), "{text}");
            let named = text.contains(&format!("{argument} is"))
                || text.contains(&format!("{argument} holds"));
            assert!(named, "'{argument}' on {name}: {text}");
        }
    }
}
