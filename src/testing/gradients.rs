//! Gradient checks of operations.

use super::devices;
use crate::autograd::Var;
use crate::autograd::gradcheck::{Leaf, relative_errors};
use crate::error::Result;
use crate::ops::Scale;
use crate::philox::Philox;
use crate::tensor::Tensor;

/// The largest relative error of a leaf's gradient, in the Euclidean norm.
const TOLERANCE: f64 = 2e-3;
/// The step of a central difference, relative to the root mean square of the leaf.
const STEP: f64 = 1e-2;

/// Fails unless, on every device, the gradients of `function` agree with central differences.
///
/// The function is in the middle of a graph: its inputs are multiplied by 1.7, its result by -0.6,
/// and each element of the result has its own coefficient. So the check fails for a backward pass
/// that drops or scales the gradient of its result.
pub fn check_gradients(operation: &str, leaves: &[Leaf], function: impl Fn(&[Var]) -> Result<Var>) {
    for (name, device) in devices::all() {
        let errors = relative_errors(&device, leaves, STEP, |leaves| {
            let inputs = leaves.iter().map(|leaf| leaf.scale(1.7));
            function(&inputs.collect::<Result<Vec<_>>>()?)?.scale(-0.6)
        });
        let errors = errors.unwrap_or_else(|error| panic!("{operation} on {name}: {error}"));
        assert!(
            errors.iter().all(|&error| error < TOLERANCE),
            "{operation} on {name}: relative errors {errors:?} of the gradients"
        );
    }
}

fn rng(stream: u32) -> Philox {
    Philox::new(11, [stream, 0, 0])
}

/// A leaf of normal numbers.
pub fn normal_leaf(stream: u32, shape: &[usize]) -> Leaf {
    let mut rng = rng(stream);
    let count = shape.iter().product();
    Leaf::new(shape, (0..count).map(|_| rng.normal()).collect())
}

/// A leaf of numbers of random sign, with magnitudes in [low, high).
pub fn signed(stream: u32, shape: &[usize], low: f32, high: f32) -> Leaf {
    let mut rng = rng(stream);
    let draw = |_| {
        let size = rng.uniform(low, high);
        if rng.below(2) == 0 { size } else { -size }
    };
    Leaf::new(shape, (0..shape.iter().product()).map(draw).collect())
}

/// A leaf of numbers in random order, any two at least 0.1 apart, so that the step of the check
/// does not change their order.
pub fn spaced(stream: u32, shape: &[usize]) -> Leaf {
    let count: usize = shape.iter().product();
    let middle = count as f32 / 2.0;
    let mut values: Vec<f32> = (0..count).map(|i| 0.1 * (i as f32 - middle)).collect();
    rng(stream).shuffle(&mut values);
    Leaf::new(shape, values)
}

/// `y = 3 x` with a backward pass that multiplies the gradient of `y` by `factor`, or ignores it if
/// there is no factor.
fn wrong_scale(x: &Var, factor: Option<f32>) -> Result<Var> {
    let y = x.device().run(Scale {
        factor: 3.0,
        x: x.tensor(),
    })?;
    Var::record("wrong_scale", y, [("x", x)], move |device, dy| {
        let dx = match factor {
            Some(factor) => device.run(Scale { factor, x: &dy })?,
            None => Tensor::from_slice(&vec![3.0f32; dy.len()], dy.shape(), device)?,
        };
        Ok([dx])
    })
}

#[test]
fn the_checker_catches_a_backward_pass_that_is_wrong() {
    let error = |factor| {
        let leaves = [normal_leaf(1, &[3, 4])];
        let function = |x: &[Var]| wrong_scale(&x[0], factor);
        relative_errors(&devices::cpu(), &leaves, STEP, function).expect("a small graph")[0]
    };
    assert!(error(Some(3.0)) < 1e-4, "right: {}", error(Some(3.0)));
    let three_percent = error(Some(3.0 * 1.03));
    assert!((0.028..0.032).contains(&three_percent), "{three_percent}");
    assert!(error(None) > 0.1, "forgotten dy: {}", error(None));
    assert!(error(Some(-3.0)) > 1.0, "sign: {}", error(Some(-3.0)));
}
