//! Arguments that do not fit.

use super::*;
use crate::Tensor;
use crate::error::Result;
use crate::ops::batch_norm::{BatchNormDx, UpdateAverages, UpdateRunningStatistics};
use crate::testing::{refused, refused_argument, zeros, zeros_u32, zeros16};

const SHAPE: [usize; 4] = [2, 3, 4, 5];

fn statistics_of(device: &Device, mean: usize, variance: usize) -> BatchStatistics {
    BatchStatistics {
        mean: zeros(device, &[mean]),
        variance: zeros(device, &[variance]),
    }
}

/// A norm of three channels.
fn norm(device: &Device) -> ChannelNorm {
    ChannelNorm {
        statistics: statistics_of(device, 3, 3),
        gamma: zeros(device, &[3]),
        beta: zeros(device, &[3]),
        eps: EPS,
    }
}

fn forward(x: &Tensor, norm: &ChannelNorm, activation: Activation<&Tensor>) -> Result<Tensor> {
    x.device().run(BatchNorm {
        x,
        norm,
        activation,
    })
}

/// The backward pass, of an `x` that is shared or not.
fn backward_of(
    dy: &Tensor,
    x: Tensor,
    norm: &ChannelNorm,
    statistics: Statistics,
) -> Result<Tensor> {
    let device = x.device();
    let gradients = device.run(BatchNormBackward {
        dy: dy.clone(),
        x,
        norm,
        activation: Activation::Relu,
        statistics,
    })?;
    Ok(gradients.dx)
}

fn dx_alone(dy: &Tensor, norm: &ChannelNorm, y: Option<&Tensor>) -> Result<Tensor> {
    dy.device().run(BatchNormDx { dy, norm, y })
}

#[test]
fn statistics_need_activations_with_elements() {
    for (name, device) in devices::all() {
        let of = |x: &Tensor| device.run(BatchNormStatistics { x });
        refused(name, "dimensions", of(&zeros(&device, &[2, 3])));
        refused(name, "type", of(&zeros_u32(&device, &SHAPE)));
        for shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            refused(name, "no elements", of(&zeros(&device, &shape)));
        }
    }
}

#[test]
fn a_norm_needs_one_number_per_channel() {
    for (name, device) in devices::all() {
        let (x, norm) = (&zeros(&device, &SHAPE), norm(&device));
        let dy = &zeros(&device, &SHAPE);
        let with = |change: &dyn Fn(&mut ChannelNorm)| {
            let mut norm = norm.clone();
            change(&mut norm);
            norm
        };
        for (what, norm) in [
            (
                "variance",
                with(&|norm| norm.statistics = statistics_of(&device, 3, 4)),
            ),
            ("gamma", with(&|norm| norm.gamma = zeros(&device, &[2]))),
            ("beta", with(&|norm| norm.beta = zeros(&device, &[4]))),
            (
                "type of gamma",
                with(&|norm| norm.gamma = zeros_u32(&device, &[3])),
            ),
        ] {
            let norm = &norm;
            refused(name, what, forward(x, norm, Activation::Identity));
            for statistics in [Statistics::OfTheBatch, Statistics::Constant] {
                refused(name, what, backward_of(dy, x.clone(), norm, statistics));
                let unshared = zeros(&device, &SHAPE);
                refused(name, what, backward_of(dy, unshared, norm, statistics));
            }
            refused(name, what, dx_alone(x, norm, None));
        }
        let training = |gamma, beta| {
            device.run(BatchNormTraining {
                x,
                gamma,
                beta,
                eps: EPS,
                activation: Activation::Relu,
            })
        };
        let [three, two] = &[3, 2].map(|c| zeros(&device, &[c]));
        refused(name, "gamma", training(two, three));
        refused(name, "beta", training(three, two));
        training(three, three).expect("arguments that fit");
    }
}

#[test]
fn activations_need_one_shape_and_type() {
    for (name, device) in devices::all() {
        let (x, norm) = (&zeros(&device, &SHAPE), &norm(&device));
        let (other, integers) = (&zeros(&device, &[2, 3, 5, 4]), &zeros_u32(&device, &SHAPE));
        let matrix = &zeros(&device, &[2, 3]);
        refused(name, "x", forward(matrix, norm, Activation::Identity));
        let add_other = Activation::AddRelu(other);
        refused(name, "shortcut", forward(x, norm, add_other));
        for dy in [other, integers] {
            for statistics in [Statistics::OfTheBatch, Statistics::Constant] {
                refused(name, "dy", backward_of(dy, x.clone(), norm, statistics));
                let unshared = zeros(&device, &SHAPE);
                refused(name, "dy", backward_of(dy, unshared, norm, statistics));
            }
            refused(name, "dy of dx alone", dx_alone(dy, norm, Some(x)));
        }
    }
}

#[test]
fn running_statistics_need_those_of_a_batch() {
    for (name, device) in devices::all() {
        let [good, running] = &[(); 2].map(|()| statistics_of(&device, 3, 3));
        let bad = &statistics_of(&device, 3, 4);
        let run = |running, batch, count, gate| {
            device.run(UpdateRunningStatistics {
                running,
                batch,
                count,
                momentum: 0.1,
                gate,
            })
        };
        let [gate, long_gate] = &[1, 2].map(|len| zeros_u32(&device, &[len]));
        let float_gate = &zeros(&device, &[1]);
        refused(name, "batch", run(running, bad, 40, None));
        refused(name, "running", run(bad, good, 40, None));
        refused(name, "one tensor twice", run(good, good, 40, None));
        let long = run(running, good, 40, Some(long_gate));
        refused(name, "shape of the gate", long);
        let float = run(running, good, 40, Some(float_gate));
        refused(name, "type of the gate", float);
        run(running, good, 40, Some(gate)).expect("arguments that fit");
        refused(name, "count", run(running, good, 1, None));
    }
}

#[test]
fn averages_need_as_many_values_and_factors() {
    for (name, device) in devices::all() {
        let [averages, values, factors] = &[(); 3].map(|()| zeros(&device, &[3]));
        let long = &zeros(&device, &[4]);
        let run = |averages, values, factors, gate| {
            device.run(UpdateAverages {
                averages,
                values,
                factors,
                momentum: 0.1,
                gate,
            })
        };
        refused(name, "values", run(averages, long, factors, None));
        refused(name, "factors", run(averages, values, long, None));
        refused(name, "one tensor", run(averages, averages, factors, None));
        let gate = &zeros_u32(&device, &[2]);
        refused(name, "gate", run(averages, values, factors, Some(gate)));
        run(averages, values, factors, None).expect("arguments that fit");
    }
}

/// An argument of the other element type is named.
#[test]
fn f16_and_f32_do_not_mix() {
    for (name, device) in devices::with_f16(devices::all()) {
        let (x, x16) = (&zeros(&device, &SHAPE), &zeros16(&device, &SHAPE));
        let norm = &norm(&device);
        let half_gamma = &ChannelNorm {
            gamma: zeros16(&device, &[3]),
            ..norm.clone()
        };
        let add_f32 = Activation::AddRelu(x);
        refused_argument(name, "shortcut", forward(x16, norm, add_f32));
        let gamma = forward(x16, half_gamma, Activation::Relu);
        refused_argument(name, "gamma", gamma);
        let statistics = Statistics::OfTheBatch;
        let shared = backward_of(x, x16.clone(), norm, statistics);
        refused_argument(name, "dy", shared);
        let unshared = zeros16(&device, &SHAPE);
        let unshared = backward_of(x, unshared, norm, statistics);
        refused_argument(name, "dy", unshared);
    }
}
