//! Every operation's backward pass against central differences, on every device.
//!
//! Each operation stands in mid-graph: its inputs are scaled by 1.7, its result by -0.6, and the checker weighs each
//! element of that with a coefficient of its own. A backward pass that forgets what arrives, or scales it, is caught.

#[path = "../src/testing/devices.rs"]
mod devices;

use parallax::autograd::check::{Leaf, relative_errors};
use parallax::autograd::{self, Affine, Tape, Var};
use parallax::device::kernels::{Activation, BatchStatistics, ChannelNorm, Gemm};
use parallax::device::philox::Philox;
use parallax::device::shapes::{Conv2d, Pool2d};
use parallax::device::{upload_f32, upload_u32};
use parallax::{Device, Result};

/// By relative norm, for every leaf.
const TOLERANCE: f64 = 2e-3;
/// Of a central difference, relative to the leaf's root mean square.
const STEP: f64 = 1e-2;

/// Fails unless the gradients of `operation` at `leaves` agree with central differences on every device.
fn check(
    operation: &str,
    leaves: &[Leaf],
    function: impl Fn(&Device, &Tape, &[Var]) -> Result<Var>,
) {
    for (name, device) in devices::all() {
        let errors = relative_errors(&device, leaves, STEP, |tape, leaves| {
            let inputs = leaves
                .iter()
                .map(|leaf| autograd::scale(tape, 1.7, leaf))
                .collect::<Result<Vec<_>>>()?;
            let y = function(&device, tape, &inputs)?;
            autograd::scale(tape, -0.6, &y)
        });
        let errors = errors.unwrap_or_else(|error| panic!("{operation} on {name}: {error}"));
        assert!(
            errors.iter().all(|&error| error < TOLERANCE),
            "{operation} on {name}: relative errors {errors:?} of its inputs' gradients"
        );
    }
}

fn rng(stream: u32) -> Philox {
    Philox::new(11, [stream, 0, 0])
}

/// Normal numbers.
fn normal(stream: u32, shape: &[usize]) -> Leaf {
    let mut rng = rng(stream);
    let count = shape.iter().product();
    Leaf::new(shape, (0..count).map(|_| rng.normal()).collect())
}

/// Numbers of either sign with a size in [low, high).
fn signed(stream: u32, shape: &[usize], low: f32, high: f32) -> Leaf {
    let mut rng = rng(stream);
    let draw = |_| {
        let size = rng.uniform(low, high);
        if rng.below(2) == 0 { size } else { -size }
    };
    Leaf::new(shape, (0..shape.iter().product()).map(draw).collect())
}

/// Leaves of a batch norm whose result, with or without the shortcut, stays away from the kink: xhat is 1 or -1, and
/// the shift and the shortcut are smaller than the scale.
fn batch_norm_leaves() -> [Leaf; 4] {
    let mut x = signed(1, &[4, 3, 3, 2], 0.9, 1.1);
    // As many positive as negative ones, so that the mean is close to 0.
    for (i, x) in x.values.iter_mut().enumerate() {
        *x = if i % 2 == 0 { x.abs() } else { -x.abs() };
    }
    [
        x,
        signed(2, &[3], 1.0, 1.5),
        signed(3, &[3], 0.1, 0.3),
        signed(4, &[4, 3, 3, 2], 0.1, 0.3),
    ]
}

fn batch_norm_activation(number: usize, shortcut: &Var) -> Activation<&Var> {
    match number {
        0 => Activation::Identity,
        1 => Activation::Relu,
        _ => Activation::AddRelu(shortcut),
    }
}

#[test]
fn batch_norm_training() {
    for i in 0..3 {
        let name = format!("batch_norm {i} in training");
        check(&name, &batch_norm_leaves(), |_, tape, x| {
            let activation = batch_norm_activation(i, &x[3]);
            let affine = Affine {
                gamma: &x[1],
                beta: &x[2],
                eps: 1e-5,
            };
            let (y, _) = autograd::batch_norm_training(tape, &x[0], affine, activation)?;
            // Every leaf takes part, with a coefficient.
            autograd::add(tape, &y, &autograd::scale(tape, 0.3, &x[3])?)
        });
    }
}
#[test]
fn batch_norm_evaluation() {
    for i in 0..3 {
        let name = format!("batch_norm {i} in evaluation");
        check(&name, &batch_norm_leaves(), |device, tape, x| {
            let statistics = BatchStatistics {
                mean: upload_f32(device, &[0.1, -0.1, 0.05], &[3])?,
                variance: upload_f32(device, &[0.9, 1.5, 2.5], &[3])?,
            };
            let affine = Affine {
                gamma: &x[1],
                beta: &x[2],
                eps: 1e-5,
            };
            let activation = batch_norm_activation(i, &x[3]);
            let y = autograd::batch_norm_evaluation(tape, &x[0], &statistics, affine, activation)?;
            autograd::add(tape, &y, &autograd::scale(tape, 0.3, &x[3])?)
        });
    }
}

/// The weight's gradient needs the activation before it, which is computed again on the way back, as is the first one
/// for the second.
#[test]
fn convolutions_of_activations_that_were_not_kept() {
    let [x, gamma, beta, shortcut] = batch_norm_leaves();
    let leaves = [x, gamma, beta, shortcut, normal(5, &[2, 3, 1, 1])];
    let conv = Conv2d {
        stride: 1,
        padding: 0,
    };
    check("conv2d of batch_norms", &leaves, |_, tape, x| {
        let affine = Affine {
            gamma: &x[1],
            beta: &x[2],
            eps: 1e-5,
        };
        let first = autograd::add(tape, &x[3], &x[0])?;
        let (first, _) = autograd::batch_norm_training(tape, &first, affine, Activation::Relu)?;
        let sum = Activation::AddRelu(&first);
        let (second, _) = autograd::batch_norm_training(tape, &x[0], affine, sum)?;
        autograd::conv2d(tape, &second, &x[4], conv)
    });
}

#[test]
fn l2_normalize() {
    check("l2_normalize", &[normal(1, &[4, 6])], |_, tape, x| {
        autograd::l2_normalize(tape, &x[0], 1e-12)
    });
    // Rows shorter than eps are divided by eps.
    check(
        "l2_normalize of short rows",
        &[normal(1, &[4, 6])],
        |_, tape, x| autograd::l2_normalize(tape, &x[0], 100.0),
    );
}

#[test]
fn softmax_cross_entropy() {
    check(
        "softmax_cross_entropy",
        &[normal(1, &[5, 7])],
        |device, tape, x| {
            let labels = upload_u32(device, &[6, 0, 3, 3, 1], &[5])?;
            autograd::softmax_cross_entropy(tape, &x[0], &labels)
        },
    );
}

#[test]
fn nt_xent() {
    // As it is used, on rows of length 1, and on rows of any length: the gradient holds for both.
    check(
        "nt_xent of l2_normalize",
        &[normal(1, &[10, 6])],
        |_, tape, x| {
            let z = autograd::l2_normalize(tape, &x[0], 1e-12)?;
            autograd::nt_xent(tape, &z, 0.5)
        },
    );
    check("nt_xent", &[signed(1, &[8, 5], 0.1, 0.6)], |_, tape, x| {
        autograd::nt_xent(tape, &x[0], 0.7)
    });
    check(
        "nt_xent of one pair",
        &[signed(1, &[2, 5], 0.1, 0.6)],
        |_, tape, x| {
            let x = autograd::add(tape, &x[0], &x[0])?;
            autograd::nt_xent(tape, &x, 0.7)
        },
    );
}

#[test]
fn normalize() {
    check("normalize", &[normal(71, &[2, 3, 2, 3])], |_, tape, x| {
        autograd::normalize(tape, &x[0], [0.5, 0.4, 0.3], [0.2, 0.5, 1.5])
    });
}
