//! Leaves of gradient checks.

use crate::autograd::gradcheck::Leaf;
use crate::philox::Philox;

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

#[cfg(test)]
mod tests {
    use super::normal_leaf;
    use crate::autograd::Var;
    use crate::autograd::gradcheck::relative_errors;
    use crate::error::Result;
    use crate::ops::Scale;
    use crate::tensor::Tensor;
    use crate::testing::devices;
    use crate::testing::tester::GRADIENT_STEP;

    /// `y = 3 x` with a backward pass that multiplies the gradient of `y` by `factor`, or ignores
    /// it if there is no factor.
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
            relative_errors(&devices::cpu(), &leaves, GRADIENT_STEP, function)
                .expect("a small graph")[0]
        };
        assert!(error(Some(3.0)) < 1e-4, "right: {}", error(Some(3.0)));
        let three_percent = error(Some(3.0 * 1.03));
        assert!((0.028..0.032).contains(&three_percent), "{three_percent}");
        assert!(error(None) > 0.1, "forgotten dy: {}", error(None));
        assert!(error(Some(-3.0)) > 1.0, "sign: {}", error(Some(-3.0)));
    }
}
