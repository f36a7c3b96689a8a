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

/// Numbers in random order, each pair at least 0.1 apart: no two of them change places within a step.
fn spaced(stream: u32, shape: &[usize]) -> Leaf {
    let count: usize = shape.iter().product();
    let middle = count as f32 / 2.0;
    let mut values: Vec<f32> = (0..count).map(|i| 0.1 * (i as f32 - middle)).collect();
    rng(stream).shuffle(&mut values);
    Leaf::new(shape, values)
}

#[test]
fn add() {
    let leaves = [normal(1, &[3, 5]), normal(2, &[3, 5])];
    check("add", &leaves, |_, tape, x| {
        autograd::add(tape, &x[0], &x[1])
    });
}

#[test]
fn a_value_used_several_times_gathers_all_its_gradients() {
    check("three uses of x", &[normal(1, &[7])], |_, tape, x| {
        let y = autograd::add(tape, &x[0], &x[0])?;
        let z = autograd::scale(tape, 0.3, &x[0])?;
        let y = autograd::add(tape, &y, &z)?;
        autograd::add(tape, &y, &x[0])
    });
}

#[test]
fn relu() {
    check("relu", &[signed(1, &[5, 7], 0.2, 1.5)], |_, tape, x| {
        autograd::relu(tape, &x[0])
    });
}

#[test]
fn scale() {
    check("scale", &[normal(1, &[11])], |_, tape, x| {
        autograd::scale(tape, -2.5, &x[0])
    });
}

#[test]
fn sum() {
    check("sum", &[normal(1, &[3, 2, 5])], |_, tape, x| {
        autograd::sum(tape, &x[0])
    });
}

#[test]
fn reshape() {
    check("reshape", &[normal(1, &[3, 4])], |_, tape, x| {
        autograd::reshape(tape, &x[0], &[2, 6])
    });
}

#[test]
fn concat() {
    let leaves = [normal(1, &[2, 3, 2]), normal(2, &[3, 3, 2])];
    check("concat", &leaves, |_, tape, x| {
        autograd::concat(tape, &x[0], &x[1])
    });
}

#[test]
fn slice() {
    for (start, count) in [(0, 5), (0, 2), (2, 3), (1, 3)] {
        check("slice", &[normal(1, &[5, 3])], |_, tape, x| {
            autograd::slice(tape, &x[0], start, count)
        });
    }
}

#[test]
fn gemm() {
    let (m, n, k) = (3, 5, 4);
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let a = if transpose_a { [k, m] } else { [m, k] };
        let b = if transpose_b { [n, k] } else { [k, n] };
        let options = Gemm {
            transpose_a,
            transpose_b,
        };
        let leaves = [normal(1, &a), normal(2, &b)];
        check(&format!("{options:?}"), &leaves, |_, tape, x| {
            autograd::gemm(tape, options, &x[0], &x[1])
        });
    }
}

#[test]
fn linear() {
    let leaves = [normal(1, &[4, 6]), normal(2, &[3, 6]), normal(3, &[3])];
    check("linear", &leaves, |_, tape, x| {
        autograd::linear(tape, &x[0], &x[1], &x[2])
    });
}

#[test]
fn conv2d() {
    // Kernel, stride, padding, height and width.
    for (kernel, stride, padding, h, w) in [
        (1, 1, 0, 4, 3),
        (1, 2, 0, 5, 4),
        (3, 1, 1, 5, 4),
        (3, 1, 0, 4, 5),
        (3, 2, 1, 5, 6),
        (7, 2, 3, 7, 6),
    ] {
        let conv = Conv2d { stride, padding };
        let leaves = [normal(1, &[2, 2, h, w]), normal(2, &[3, 2, kernel, kernel])];
        let name = format!("conv2d with kernel {kernel} and {conv:?}");
        check(&name, &leaves, |_, tape, x| {
            autograd::conv2d(tape, &x[0], &x[1], conv)
        });
    }
}

#[test]
fn max_pool2d() {
    // Windows that overlap, that do not, and that reach into the padding.
    for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 0)] {
        let pool = Pool2d {
            kernel,
            stride,
            padding,
        };
        let leaves = [spaced(1, &[2, 2, 5, 6])];
        check(&format!("{pool:?}"), &leaves, |_, tape, x| {
            autograd::max_pool2d(tape, &x[0], pool)
        });
    }
}

#[test]
fn global_average_pool() {
    let leaves = [normal(1, &[3, 4, 2, 5])];
    check("global_average_pool", &leaves, |_, tape, x| {
        autograd::global_average_pool(tape, &x[0])
    });
}

/// `y = 3 x` with a backward pass that multiplies what arrives by `factor`; a `None` forgets what arrives.
fn wrong_scale(tape: &Tape, x: &Var, factor: Option<f32>) -> Result<Var> {
    let y = tape.device().scale(3.0, x.tensor())?;
    tape.record("wrong_scale", y, &[("x", x)], move |device, dy| {
        let dx = match factor {
            Some(factor) => device.scale(factor, dy)?,
            None => upload_f32(device, &vec![3.0; dy.len()], dy.shape())?,
        };
        Ok(vec![Some(dx)])
    })
}

#[test]
fn the_checker_catches_a_backward_pass_that_is_wrong() {
    let error = |factor| {
        let leaves = [normal(1, &[3, 4])];
        let function = |tape: &Tape, x: &[Var]| wrong_scale(tape, &x[0], factor);
        relative_errors(&devices::cpu(), &leaves, STEP, function).unwrap()[0]
    };
    assert!(error(Some(3.0)) < 1e-4, "right: {}", error(Some(3.0)));
    let three_percent = error(Some(3.0 * 1.03));
    assert!((0.028..0.032).contains(&three_percent), "{three_percent}");
    assert!(error(None) > 0.1, "forgotten dy: {}", error(None));
    assert!(error(Some(-3.0)) > 1.0, "sign: {}", error(Some(-3.0)));
}
