//! Gradient checks of operations.

use super::devices;
use crate::autograd::Var;
use crate::autograd::gradcheck::{Leaf, relative_errors};
use crate::error::Result;
use crate::philox::Philox;

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
