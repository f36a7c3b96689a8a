//! Pooling against float64.

use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    Pool2dOptions,
};
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::DType;
use crate::testing::accuracy::DIVISION;
use crate::testing::tester::On;
use crate::testing::{Expected, Sum, Tester, normal, normal_leaf, normal16, size, spaced, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    max_pool(tester)?;
    max_pool_of_a_single_pixel(tester)?;
    max_pool_gradient(tester)?;
    global_average_pool_and_its_gradient(tester)?;
    f16_activations(tester)?;
    gradients(tester)
}

const POOLS: [Pool2dOptions; 8] = [
    options(3, 2, 1),
    options(2, 2, 0),
    options(1, 1, 0),
    options(3, 1, 1),
    options(7, 2, 3),
    options(2, 1, 1),
    options(3, 3, 0),
    options(2, 3, 0),
];

const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 7, 7],
    [2, 3, 9, 8],
    [1, 17, 16, 15],
    [3, 5, 33, 31],
    [2, 64, 8, 8],
    [5, 16, 33, 33],
];

pub(super) const fn options(kernel: usize, stride: usize, padding: usize) -> Pool2dOptions {
    Pool2dOptions {
        kernel,
        stride,
        padding,
    }
}

/// The shape of the result, and its height and width.
fn result_shape(x_shape: [usize; 4], options: Pool2dOptions) -> ([usize; 4], [usize; 2]) {
    let shape @ [_, _, oh, ow] = options.result_shape(x_shape).expect("a case that fits");
    (shape, [oh, ow])
}

/// The maximum of each window, and its position in its plane: the first of several equal ones. A
/// window with a NaN gives NaN, at the first NaN.
pub(super) fn max_pool2d_in_float64(
    [n, c, h, w]: [usize; 4],
    [oh, ow]: [usize; 2],
    options: Pool2dOptions,
    x: &[f64],
) -> (Expected, Vec<u32>) {
    let Pool2dOptions {
        kernel,
        stride,
        padding,
    } = options;
    let (mut y, mut argmax) = (Vec::new(), Vec::new());
    for plane in x.chunks(h * w).take(n * c) {
        for i in 0..oh {
            for j in 0..ow {
                let mut best: Option<usize> = None;
                for u in 0..kernel {
                    for v in 0..kernel {
                        let (row, column) = (i * stride + u, j * stride + v);
                        if row < padding || column < padding {
                            continue;
                        }
                        let (row, column) = (row - padding, column - padding);
                        if row >= h || column >= w {
                            continue;
                        }
                        let here = row * w + column;
                        let is_better = match best {
                            None => true,
                            Some(best) if plane[best].is_nan() => false,
                            Some(best) => plane[here] > plane[best] || plane[here].is_nan(),
                        };
                        if is_better {
                            best = Some(here);
                        }
                    }
                }
                let best = best.expect("padding is at most half of the kernel");
                y.push(plane[best]);
                argmax.push(best as u32);
            }
        }
    }
    (Expected::exact(y), argmax)
}

/// Each dy added at the position of its maximum. K is the number of windows with that maximum.
pub(super) fn max_pool2d_backward_in_float64(
    [n, c, h, w]: [usize; 4],
    [oh, ow]: [usize; 2],
    dy: &[f64],
    argmax: &[u32],
) -> Expected {
    let mut sums = vec![Sum::default(); n * c * h * w];
    for (i, (dy, &at)) in dy.iter().zip(argmax).enumerate() {
        sums[i / (oh * ow) * h * w + at as usize].add(*dy);
    }
    sums.into_iter().collect()
}

/// The mean of each plane: a sum of H W terms, and a division.
pub(super) fn global_average_pool_in_float64(plane: usize, x: &[f64]) -> Expected {
    let mut y = Expected::default();
    for plane_of_x in x.chunks(plane) {
        let sum = Sum::of(plane_of_x.iter().copied());
        let mean = sum.value / plane as f64;
        y.push(mean, sum.bound() / plane as f64 + DIVISION * mean.abs());
    }
    y
}

pub(super) fn global_average_pool_backward_in_float64(plane: usize, dy: &[f64]) -> Expected {
    let spread = |dy: &f64| std::iter::repeat_n(dy / plane as f64, plane);
    Expected::elementwise(dy.iter().flat_map(spread).collect())
}

/// The numbers in the planes.
#[derive(Clone, Copy, Debug)]
enum Input {
    Normal,
    /// Four different numbers, so that most windows have ties.
    Ties,
    /// Below zero everywhere, so that padding counted as zero would win.
    Negative,
    /// One element in eight is NaN.
    NotANumber,
}

fn input(rng: &mut Philox, kind: Input, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| match kind {
            Input::Normal => rng.normal(),
            Input::Ties => rng.below(4) as f32 - 2.0,
            Input::Negative => rng.uniform(-6.0, -5.0),
            Input::NotANumber if rng.below(8) == 0 => f32::NAN,
            Input::NotANumber => rng.normal(),
        })
        .collect()
}

fn max_pool(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(50);
    let kinds = [
        Input::Normal,
        Input::Ties,
        Input::Negative,
        Input::NotANumber,
    ];
    for x_shape in SHAPES {
        for options in POOLS {
            for kind in kinds {
                let x = input(&mut rng, kind, x_shape.iter().product());
                let (y_shape, window) = result_shape(x_shape, options);
                let (y, argmax) = max_pool2d_in_float64(x_shape, window, options, &wide(&x));
                for on in tester.all() {
                    let case = format!("{kind:?} {x_shape:?} {options:?}");
                    let there = &on.put(&x, &x_shape)?;
                    let result = on.run(MaxPool2d { x: there, options })?;
                    on.agree(&case, &result.y, &y_shape, &y)?;
                    let plane = x_shape[2] * x_shape[3];
                    let mut found = result.argmax.to_vec::<u32>()?;
                    for (i, at) in found.iter_mut().enumerate() {
                        // Any NaN of the plane is right.
                        let own = &x[i / (window[0] * window[1]) * plane..][..plane];
                        let chosen = own.get(*at as usize);
                        if y.value[i].is_nan() && chosen.is_some_and(|x| x.is_nan()) {
                            *at = argmax[i];
                        }
                    }
                    on.equal(&format!("argmax {case}"), &found, &argmax);
                }
            }
        }
    }
    Ok(())
}

fn max_pool_of_a_single_pixel(tester: &Tester) -> Result<()> {
    for options in [options(1, 1, 0), options(3, 2, 1), options(2, 1, 1)] {
        let (y_shape, _) = result_shape([1, 1, 1, 1], options);
        for on in tester.all() {
            let x = &on.put(&[-3.0], &[1, 1, 1, 1])?;
            let MaxPooled { y, argmax } = on.run(MaxPool2d { x, options })?;
            let case = format!("of one pixel, {options:?}");
            let expected = Expected::exact(vec![-3.0; y.len()]);
            on.agree(&case, &y, &y_shape, &expected)?;
            on.equal(&case, &argmax.to_vec()?, &vec![0; y.len()]);
        }
    }
    Ok(())
}

fn max_pool_gradient(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(51);
    for x_shape in SHAPES {
        for options in POOLS {
            let x = input(&mut rng, Input::Ties, x_shape.iter().product());
            let (y_shape, window) = result_shape(x_shape, options);
            let (_, argmax) = max_pool2d_in_float64(x_shape, window, options, &wide(&x));
            let dy = normal(&mut rng, argmax.len());
            let expected = max_pool2d_backward_in_float64(x_shape, window, &wide(&dy), &argmax);
            for on in tester.all() {
                let back = MaxPool2dBackward {
                    dy: &on.put(&dy, &y_shape)?,
                    argmax: &on.put(&argmax, &y_shape)?,
                    x_shape,
                    options,
                };
                let dx = on.run(back)?;
                let case = format!("{x_shape:?} {options:?}");
                on.agree(&case, &dx, &x_shape, &expected)?;
            }
        }
    }
    Ok(())
}

fn global_average_pool_and_its_gradient(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(52);
    let mut cases = SHAPES.to_vec();
    cases.extend([[1, 1, 1, 1], [3, 17, 1, 1], [1, 3, 65, 63], [129, 64, 2, 2]]);
    cases.extend((0..4).map(|_| std::array::from_fn(|_| size(&mut rng, 1, 20))));
    for x_shape in cases {
        let [n, c, h, w] = x_shape;
        let x: Vec<f32> = (0..n * c * h * w).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let dy = normal(&mut rng, n * c);
        let y_expected = global_average_pool_in_float64(h * w, &wide(&x));
        let dx_expected = global_average_pool_backward_in_float64(h * w, &wide(&dy));
        for on in tester.all() {
            let x = &on.put(&x, &x_shape)?;
            let y = on.run(GlobalAveragePool { x })?;
            let case = format!("{x_shape:?}");
            on.agree(&case, &y, &[n, c], &y_expected)?;
            let back = GlobalAveragePoolBackward {
                dy: &on.put(&dy, &[n, c])?,
                x_shape,
                dtype: DType::F32,
            };
            let dx = on.run(back)?;
            let case = format!("{x_shape:?}");
            on.agree(&case, &dx, &x_shape, &dx_expected)?;
        }
    }
    Ok(())
}

fn f16_activations(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(86);
    for x_shape in [[2, 3, 9, 7], [3, 5, 33, 31], [5, 16, 33, 33], [2, 64, 8, 8]] {
        let [n, c, h, w] = x_shape;
        let x = normal16(&mut rng, n * c * h * w);
        for options in [options(3, 2, 1), options(2, 2, 0), options(2, 3, 0)] {
            let (y_shape, window) = result_shape(x_shape, options);
            let (y, argmax) = max_pool2d_in_float64(x_shape, window, options, &wide(&x));
            let dy = normal16(&mut rng, y_shape.iter().product());
            let dx = max_pool2d_backward_in_float64(x_shape, window, &wide(&dy), &argmax);
            for on in tester.all().filter(On::has_f16) {
                let case = format!("{x_shape:?} {options:?}");
                let x = &on.put16(&x, &x_shape)?;
                let result = on.run(MaxPool2d { x, options })?;
                on.agree16(&case, &result.y, &y_shape, &y)?;
                on.equal(&case, &result.argmax.to_vec()?, &argmax);
                let back = MaxPool2dBackward {
                    dy: &on.put16(&dy, &y_shape)?,
                    argmax: &result.argmax,
                    x_shape,
                    options,
                };
                let back = on.run(back)?;
                on.agree16(&case, &back, &x_shape, &dx)?;
            }
        }
        let mean = global_average_pool_in_float64(h * w, &wide(&x));
        let dy = normal(&mut rng, n * c);
        let dx = global_average_pool_backward_in_float64(h * w, &wide(&dy));
        for on in tester.all().filter(On::has_f16) {
            let case = format!("{x_shape:?}");
            let x = &on.put16(&x, &x_shape)?;
            let y = on.run(GlobalAveragePool { x })?;
            on.agree(&case, &y, &[n, c], &mean)?;
            let back = GlobalAveragePoolBackward {
                dy: &on.put(&dy, &[n, c])?,
                x_shape,
                dtype: DType::F16,
            };
            let back = on.run(back)?;
            on.agree16(&format!("backward {case}"), &back, &x_shape, &dx)?;
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    // Windows that overlap, that do not, and that reach into the padding.
    for options in [options(3, 2, 1), options(2, 2, 0), options(3, 1, 0)] {
        let leaves = [spaced(1, &[2, 2, 5, 6])];
        tester.gradients(&format!("{options:?}"), &leaves, |x| {
            x[0].max_pool2d(options)
        })?;
    }
    let leaves = [normal_leaf(1, &[3, 4, 2, 5])];
    tester.gradients("global_average_pool", &leaves, |x| {
        x[0].global_average_pool()
    })
}
