//! Gradients of batch norm against finite differences.

use super::{activations, put_statistics};
use crate::autograd::Var;
use crate::autograd::gradcheck::Leaf;
use crate::error::Result;
use crate::ops::Conv2dOptions;
use crate::ops::batch_norm::reference::EPS;
use crate::ops::batch_norm::{Activation, Affine};
use crate::testing::{Tester, normal_leaf, signed};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    in_training(tester)?;
    in_evaluation(tester)?;
    of_a_convolution_of_recomputed_activations(tester)
}

/// A convolution of single pixels.
const POINTWISE: Conv2dOptions = Conv2dOptions {
    stride: 1,
    padding: 0,
};

/// Leaves x, gamma, beta and shortcut of a batch norm whose result, with or without the shortcut,
/// is not near the kink: xhat is near 1 or -1, and shift and shortcut are smaller than the scale.
fn leaves_away_from_the_kink() -> [Leaf; 4] {
    let mut x = signed(1, &[4, 3, 3, 2], 0.9, 1.1);
    // As many positive as negative numbers, so that the mean is near 0.
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

fn affine(x: &[Var]) -> Affine<'_> {
    Affine {
        gamma: &x[1],
        beta: &x[2],
        eps: EPS,
    }
}

fn in_training(tester: &Tester) -> Result<()> {
    for (name, activation) in activations(()) {
        let leaves = leaves_away_from_the_kink();
        tester.gradients(&format!("batch_norm, {name}, in training"), &leaves, |x| {
            let (y, _) = x[0].batch_norm(affine(x), activation.map(|()| &x[3]))?;
            // The shortcut takes part in the result, whatever the activation is.
            y.add(&x[3].scale(0.3)?)
        })?;
    }
    Ok(())
}

fn in_evaluation(tester: &Tester) -> Result<()> {
    for (name, activation) in activations(()) {
        let leaves = leaves_away_from_the_kink();
        tester.gradients(
            &format!("batch_norm, {name}, in evaluation"),
            &leaves,
            |x| {
                let device = x[0].device();
                let statistics = put_statistics(&device, &[0.1, -0.1, 0.05], &[0.9, 1.5, 2.5])?;
                let activation = activation.map(|()| &x[3]);
                let y = x[0].batch_norm_evaluation(&statistics, affine(x), activation)?;
                y.add(&x[3].scale(0.3)?)
            },
        )?;
    }
    Ok(())
}

/// The gradient of the weight needs the activation before it, which is recomputed in the backward
/// pass. That recomputation needs another recomputed activation.
fn of_a_convolution_of_recomputed_activations(tester: &Tester) -> Result<()> {
    let [x, gamma, beta, shortcut] = leaves_away_from_the_kink();
    let leaves = [x, gamma, beta, shortcut, normal_leaf(5, &[2, 3, 1, 1])];
    tester.gradients("conv2d of batch_norms", &leaves, |x| {
        let first = x[3].add(&x[0])?;
        let (first, _) = first.batch_norm(affine(x), Activation::Relu)?;
        let (second, _) = x[0].batch_norm(affine(x), Activation::AddRelu(&first))?;
        second.conv2d(&x[4], POINTWISE)
    })
}
