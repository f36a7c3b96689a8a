//! Batch norm: statistics, forward, both backward passes, running statistics.

use parallax::device::Device;
use parallax::device::kernels::{BatchStatistics, RunningUpdate};
use parallax::device::philox::Philox;

use crate::compare::{agree, bits, get, narrow, normal, put, put_u32, random, wide};
use crate::{devices, reference};

const EPS: f32 = 1e-5;

const SHAPES: [[usize; 4]; 9] = [
    [1, 1, 1, 2],
    [2, 1, 1, 1],
    [1, 3, 5, 7],
    [4, 17, 3, 3],
    [2, 64, 8, 8],
    [129, 5, 3, 3],
    [257, 2, 1, 1],
    [3, 3, 65, 63],
    [64, 17, 9, 9],
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
fn normalisation() {
    let mut rng = random(41);
    for shape in SHAPES {
        for kind in INPUTS {
            let x = input(&mut rng, kind, shape);
            let (mean, variance) = statistics(shape, &x);
            let (gamma, beta) = (normal(&mut rng, shape[1]), normal(&mut rng, shape[1]));
            let expected = reference::batch_norm::batch_norm(
                shape,
                &wide(&x),
                (&wide(&mean), &wide(&variance)),
                (&wide(&gamma), &wide(&beta)),
                f64::from(EPS),
            );
            for (name, device) in devices::all() {
                let y = device
                    .batch_norm(
                        &put(&device, &x, &shape),
                        &put_statistics(&device, &mean, &variance),
                        &put(&device, &gamma, &[shape[1]]),
                        &put(&device, &beta, &[shape[1]]),
                        EPS,
                    )
                    .expect(name);
                let case = format!("batch_norm {kind:?} {shape:?} on {name}");
                agree(&case, &device, &y, &shape, &expected);
            }
        }
    }
}

#[test]
fn gradients_in_training_and_in_evaluation() {
    let mut rng = random(42);
    for shape in SHAPES {
        for kind in INPUTS {
            let x = input(&mut rng, kind, shape);
            let dy = normal(&mut rng, x.len());
            let (mean, variance) = statistics(shape, &x);
            let gamma = normal(&mut rng, shape[1]);
            for training in [true, false] {
                let backward = if training {
                    reference::batch_norm::training_backward
                } else {
                    reference::batch_norm::evaluation_backward
                };
                let expected = backward(
                    shape,
                    &wide(&dy),
                    &wide(&x),
                    (&wide(&mean), &wide(&variance)),
                    &wide(&gamma),
                    f64::from(EPS),
                );
                for (name, device) in devices::all() {
                    let dy = put(&device, &dy, &shape);
                    let x = put(&device, &x, &shape);
                    let statistics = put_statistics(&device, &mean, &variance);
                    let gamma = put(&device, &gamma, &[shape[1]]);
                    let gradients = if training {
                        device.batch_norm_training_backward(&dy, &x, &statistics, &gamma, EPS)
                    } else {
                        device.batch_norm_evaluation_backward(&dy, &x, &statistics, &gamma, EPS)
                    }
                    .expect(name);
                    let case = format!("{kind:?} {shape:?}, training {training}, on {name}");
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
                }
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
