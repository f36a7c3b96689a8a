//! Batch norm: statistics, forward, both backward passes, running statistics.

use parallax::device::Device;
use parallax::device::kernels::{Activation, BatchStatistics, ChannelNorm, RunningUpdate};
use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Conv2d};

use crate::compare::{agree, bits, get, narrow, normal, put, put_u32, random, wide};
use crate::{devices, reference};

const EPS: f32 = 1e-5;

const SHAPES: [[usize; 4]; 16] = [
    [1, 1, 1, 2],
    [2, 1, 1, 1],
    [1, 3, 5, 7],
    [4, 17, 3, 3],
    [2, 64, 8, 8],
    [129, 5, 3, 3],
    [257, 2, 1, 1],
    [3, 3, 65, 63],
    [64, 17, 9, 9],
    // Planes of whole vec4s, with few and many images, and one longer than a workgroup's turn.
    [140, 5, 4, 4],
    [37, 17, 8, 8],
    [3, 2, 34, 34],
    // Planes of whole eights, with more channels than lanes, and fewer, and several splits.
    [5, 19, 4, 6],
    [1, 1, 2, 4],
    [21, 3, 32, 32],
    // Planes that a lane sums by itself, about as long as the tests' small bindings hold.
    [1, 2, 112, 144],
];

/// Numbers of one mean and deviation, the same for every channel but the first, which is constant in the last kind.
#[derive(Clone, Copy, Debug)]
enum Input {
    Standard,
    /// Mean 100, deviation 0.1: the squares agree in their first six digits.
    LargeMean,
    /// The first channel is the same number everywhere.
    ConstantChannel,
}

const INPUTS: [Input; 3] = [Input::Standard, Input::LargeMean, Input::ConstantChannel];

fn input(rng: &mut Philox, kind: Input, shape: [usize; 4]) -> Vec<f32> {
    let plane = shape[2] * shape[3];
    let mut x = normal(rng, shape.iter().product());
    for (i, x) in x.iter_mut().enumerate() {
        match kind {
            Input::Standard => {}
            Input::LargeMean => *x = 100.0 + 0.1 * *x,
            Input::ConstantChannel if (i / plane).is_multiple_of(shape[1]) => *x = 2.7,
            Input::ConstantChannel => {}
        }
    }
    x
}

/// The statistics of `x`, rounded to f32: what every kernel after the first is given.
fn statistics(shape: [usize; 4], x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mean, variance) = reference::batch_norm::statistics(shape, &wide(x));
    (narrow(&mean.value), narrow(&variance.value))
}

fn put_statistics(device: &Device, mean: &[f32], variance: &[f32]) -> BatchStatistics {
    BatchStatistics {
        mean: put(device, mean, &[mean.len()]),
        variance: put(device, variance, &[variance.len()]),
    }
}

/// A channel's numbers on the host.
struct Numbers {
    mean: Vec<f32>,
    variance: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Numbers {
    fn new(rng: &mut Philox, shape: [usize; 4], x: &[f32]) -> Self {
        let (mean, variance) = statistics(shape, x);
        let [gamma, beta] = std::array::from_fn(|_| normal(rng, shape[1]));
        Numbers {
            mean,
            variance,
            gamma,
            beta,
        }
    }

    fn put(&self, device: &Device) -> ChannelNorm {
        ChannelNorm {
            statistics: put_statistics(device, &self.mean, &self.variance),
            gamma: put(device, &self.gamma, &[self.gamma.len()]),
            beta: put(device, &self.beta, &[self.beta.len()]),
            eps: EPS,
        }
    }

    /// `y = xhat gamma + beta` in float64.
    fn normalized(&self, shape: [usize; 4], x: &[f32]) -> reference::Expected {
        reference::batch_norm::batch_norm(
            shape,
            &wide(x),
            (&wide(&self.mean), &wide(&self.variance)),
            (&wide(&self.gamma), &wide(&self.beta)),
            f64::from(EPS),
        )
    }
}

#[test]
fn statistics_of_a_batch() {
    let mut rng = random(40);
    for shape in SHAPES {
        for kind in INPUTS {
            let x = input(&mut rng, kind, shape);
            let (mean, variance) = reference::batch_norm::statistics(shape, &wide(&x));
            for (name, device) in devices::all() {
                let case = format!("{kind:?} {shape:?} on {name}");
                let statistics = device
                    .batch_norm_statistics(&put(&device, &x, &shape))
                    .expect(name);
                let c = [shape[1]];
                agree(
                    &format!("mean of {case}"),
                    &device,
                    &statistics.mean,
                    &c,
                    &mean,
                );
                let case = format!("variance of {case}");
                agree(&case, &device, &statistics.variance, &c, &variance);
            }
        }
    }
}

#[test]
fn normalisation_and_what_follows() {
    let mut rng = random(41);
    for shape in SHAPES {
        for kind in INPUTS {
            let x = input(&mut rng, kind, shape);
            let shortcut = normal(&mut rng, x.len());
            let numbers = Numbers::new(&mut rng, shape, &x);
            let identity = numbers.normalized(shape, &x);
            let relu = reference::batch_norm::activated(&identity, None);
            let add_relu = reference::batch_norm::activated(&identity, Some(&wide(&shortcut)));
            for (name, device) in devices::all() {
                let (x, norm) = (put(&device, &x, &shape), numbers.put(&device));
                let shortcut = put(&device, &shortcut, &shape);
                for (activation, expected) in [
                    (Activation::Identity, &identity),
                    (Activation::Relu, &relu),
                    (Activation::AddRelu(&shortcut), &add_relu),
                ] {
                    let y = device.batch_norm(&x, &norm, activation).expect(name);
                    let case = format!("batch_norm, {activation:?}, {kind:?} {shape:?} on {name}");
                    agree(&case, &device, &y, &shape, expected);
                }
            }
        }
    }
}

#[test]
fn a_rectified_result_keeps_nan() {
    let norm = Numbers {
        mean: vec![0.0],
        variance: vec![1.0],
        gamma: vec![1.0],
        beta: vec![0.0],
    };
    for (name, device) in devices::all() {
        let x = put(&device, &[f32::NAN, -1.0], &[1, 1, 1, 2]);
        let zeros = put(&device, &[0.0; 2], &[1, 1, 1, 2]);
        for activation in [Activation::Relu, Activation::AddRelu(&zeros)] {
            let y = device.batch_norm(&x, &norm.put(&device), activation);
            let y = get(&device, &y.expect(name));
            assert!(y[0].is_nan() && y[1] == 0.0, "{y:?} on {name}");
        }
    }
}

#[test]
fn gradients_in_training_and_in_evaluation() {
    let mut rng = random(42);
    for shape in SHAPES {
        for kind in INPUTS {
            let x = input(&mut rng, kind, shape);
            let numbers = Numbers::new(&mut rng, shape, &x);
            let y = numbers.normalized(shape, &x);
            let mut dy = normal(&mut rng, x.len());
            for (training, rectified) in
                [(true, false), (true, true), (false, false), (false, true)]
            {
                let mut passed = wide(&dy);
                if rectified {
                    for (i, dy) in dy.iter_mut().enumerate() {
                        // Where rounding decides on which side of the kink y lies, nothing may depend on it.
                        if y.value[i].abs() <= y.bound[i] {
                            *dy = 0.0;
                        }
                        passed[i] = if y.value[i] > 0.0 {
                            f64::from(*dy)
                        } else {
                            0.0
                        };
                    }
                }
                let backward = if training {
                    reference::batch_norm::training_backward
                } else {
                    reference::batch_norm::evaluation_backward
                };
                let expected = backward(
                    shape,
                    &passed,
                    &wide(&x),
                    (&wide(&numbers.mean), &wide(&numbers.variance)),
                    &wide(&numbers.gamma),
                    f64::from(EPS),
                );
                for (name, device) in devices::all() {
                    let dy = put(&device, &dy, &shape);
                    let x = put(&device, &x, &shape);
                    let norm = numbers.put(&device);
                    let gradients = if training {
                        device.batch_norm_training_backward(&dy, &x, &norm, rectified)
                    } else {
                        device.batch_norm_evaluation_backward(&dy, &x, &norm, rectified)
                    }
                    .expect(name);
                    let case = format!(
                        "{kind:?} {shape:?}, training {training}, rectified {rectified}, on {name}"
                    );
                    let c = [shape[1]];
                    let check = |what: &str, actual, shape: &[usize], expected| {
                        agree(
                            &format!("{what} of {case}"),
                            &device,
                            actual,
                            shape,
                            expected,
                        );
                    };
                    check("dbeta", &gradients.dbeta, &c, &expected.dbeta);
                    check("dgamma", &gradients.dgamma, &c, &expected.dgamma);
                    check("dx", &gradients.dx, &shape, &expected.dx);
                    if training {
                        let place = device.copy(&x).expect(name);
                        let there = device
                            .batch_norm_training_backward_in_place(&dy, &place, &norm, rectified)
                            .expect(name);
                        assert_eq!(there.dx.id(), place.id(), "{case}");
                        for (what, there, apart) in [
                            ("dx", &there.dx, &gradients.dx),
                            ("dgamma", &there.dgamma, &gradients.dgamma),
                            ("dbeta", &there.dbeta, &gradients.dbeta),
                        ] {
                            let [there, apart] = [there, apart].map(|x| bits(&get(&device, x)));
                            assert!(there == apart, "{what} in place of x, {case}");
                        }
                    }
                    if !training {
                        let y = rectified
                            .then(|| device.batch_norm(&x, &norm, Activation::Relu).expect(name));
                        let dx = device.batch_norm_evaluation_dx(&dy, &norm, y.as_ref());
                        check("dx alone", &dx.expect(name), &shape, &expected.dx);
                    }
                }
            }
        }
    }
}

/// Also those that the CPU device takes by Winograd's method, keeping kernels or inputs, and blocks of several images.
#[test]
fn a_convolution_with_its_batch_norm_is_the_two_to_the_bit() {
    let mut rng = random(44);
    for ([n, c, h, w], o, kernel, stride) in [
        ([3, 5, 7, 6], 9, 3, 2),
        ([2, 4, 33, 33], 7, 1, 1),
        ([9, 6, 4, 4], 5, 1, 1),
        ([9, 32, 16, 15], 33, 3, 1),
        ([3, 32, 4, 4], 40, 3, 1),
    ] {
        let conv = Conv2d {
            stride,
            padding: kernel / 2,
        };
        let x = normal(&mut rng, n * c * h * w);
        let weight = normal(&mut rng, o * c * kernel * kernel);
        let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
        let y_shape = [n, o, oh, ow];
        let shortcut = normal(&mut rng, y_shape.iter().product());
        let numbers = Numbers::new(&mut rng, y_shape, &shortcut);
        let sizes = [o, c, kernel, kernel];
        let g = shapes::conv2d("test", [n, c, h, w], sizes, conv).expect("a case that fits");
        for (name, device) in devices::all() {
            if name == devices::SLICED && !super::conv2d::fits(&g) {
                continue;
            }
            let x = put(&device, &x, &[n, c, h, w]);
            let weight = put(&device, &weight, &[o, c, kernel, kernel]);
            let (norm, shortcut) = (numbers.put(&device), put(&device, &shortcut, &y_shape));
            let between = device.conv2d(&x, &weight, conv).expect(name);
            for activation in [
                Activation::Identity,
                Activation::Relu,
                Activation::AddRelu(&shortcut),
            ] {
                let two = device.batch_norm(&between, &norm, activation).expect(name);
                let one = device.conv2d_batch_norm(&x, &weight, conv, &norm, activation);
                let one = one.expect(name);
                assert_eq!(one.shape(), y_shape);
                let case = format!("{activation:?} {y_shape:?} on {name}");
                assert_eq!(
                    bits(&get(&device, &one)),
                    bits(&get(&device, &two)),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn running_statistics_follow_unless_the_gate_is_set() {
    let mut rng = random(43);
    for channels in [1, 3, 17, 257] {
        for (count, momentum) in [(2, 0.1), (10, 0.1), (1000, 1.0), (64, 0.0)] {
            let update = RunningUpdate { count, momentum };
            let [running_mean, mean] = std::array::from_fn(|_| normal(&mut rng, channels));
            let [running_variance, variance]: [Vec<f32>; 2] =
                std::array::from_fn(|_| (0..channels).map(|_| rng.uniform(0.1, 3.0)).collect());
            let unbiased = count as f64 / (count as f64 - 1.0);
            let moved = |running: &[f32], batch: &[f32], factor| {
                let momentum = f64::from(momentum);
                reference::batch_norm::running(&wide(running), &wide(batch), momentum, factor)
            };
            let mean_expected = moved(&running_mean, &mean, 1.0);
            let variance_expected = moved(&running_variance, &variance, unbiased);
            for (name, device) in devices::all() {
                for gate in [None, Some(0), Some(1)] {
                    let case = format!("{channels} {update:?}, gate {gate:?}, on {name}");
                    let running = put_statistics(&device, &running_mean, &running_variance);
                    let batch = put_statistics(&device, &mean, &variance);
                    let flag = gate.map(|gate| put_u32(&device, &[gate], &[1]));
                    device
                        .update_running_statistics(&running, &batch, update, flag.as_ref())
                        .expect(name);
                    if gate == Some(1) {
                        let kept = get(&device, &running.mean);
                        assert_eq!(bits(&kept), bits(&running_mean), "{case}");
                        let kept = get(&device, &running.variance);
                        assert_eq!(bits(&kept), bits(&running_variance), "{case}");
                        continue;
                    }
                    let c = [channels];
                    agree(&case, &device, &running.mean, &c, &mean_expected);
                    agree(&case, &device, &running.variance, &c, &variance_expected);
                }
            }
        }
    }
}
