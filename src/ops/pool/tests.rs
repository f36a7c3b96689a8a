use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    Pool2dOptions,
};
use crate::philox::Philox;
use crate::tensor::{DType, Tensor};
use crate::testing::accuracy::DIVISION;
use crate::testing::{
    Expected, Sum, agree, agree16, check_gradients, check_reference, devices, different_devices,
    dot, get, get_u32, normal, normal_leaf, normal16, numbers, put, put_u32, put16, random,
    refused, refused_argument, same_bits, size, spaced, wide, zeros, zeros_or_refused, zeros_u32,
    zeros16,
};

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

const fn options(kernel: usize, stride: usize, padding: usize) -> Pool2dOptions {
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
fn max_pool2d_in_float64(
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
fn max_pool2d_backward_in_float64(
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
fn global_average_pool_in_float64(plane: usize, x: &[f64]) -> Expected {
    let mut y = Expected::default();
    for plane_of_x in x.chunks(plane) {
        let sum = Sum::of(plane_of_x.iter().copied());
        let mean = sum.value / plane as f64;
        y.push(mean, sum.bound() / plane as f64 + DIVISION * mean.abs());
    }
    y
}

fn global_average_pool_backward_in_float64(plane: usize, dy: &[f64]) -> Expected {
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

#[test]
fn max_pool() {
    let mut rng = random(50);
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
                for (name, device) in devices::all() {
                    let case = format!("max_pool2d {kind:?} {x_shape:?} {options:?} on {name}");
                    let there = &put(&device, &x, &x_shape);
                    let result = device.run(MaxPool2d { x: there, options }).expect(name);
                    agree(&case, &result.y, &y_shape, &y);
                    assert_eq!(result.argmax.shape(), y_shape, "{case}");
                    let plane = x_shape[2] * x_shape[3];
                    for (i, &at) in get_u32(&result.argmax).iter().enumerate() {
                        if y.value[i].is_nan() {
                            // Any NaN of the plane is right.
                            let own = &x[i / (window[0] * window[1]) * plane..][..plane];
                            let chosen = own.get(at as usize);
                            assert!(
                                chosen.is_some_and(|x| x.is_nan()),
                                "{case}: argmax {i}: {at}"
                            );
                        } else {
                            assert_eq!(at, argmax[i], "{case}: argmax {i}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn max_pool_of_a_single_pixel() {
    for options in [options(1, 1, 0), options(3, 2, 1), options(2, 1, 1)] {
        let (y_shape, _) = result_shape([1, 1, 1, 1], options);
        for (name, device) in devices::all() {
            let x = &put(&device, &[-3.0], &[1, 1, 1, 1]);
            let MaxPooled { y, argmax } = device.run(MaxPool2d { x, options }).expect(name);
            assert_eq!(y.shape(), y_shape);
            let case = format!("{options:?} on {name}");
            let (y, argmax) = (get(&y), get_u32(&argmax));
            assert!(y.iter().all(|&y| y == -3.0), "{case}: {y:?}");
            assert!(argmax.iter().all(|&at| at == 0), "{case}: {argmax:?}");
        }
    }
}

#[test]
fn max_pool_gradient() {
    let mut rng = random(51);
    for x_shape in SHAPES {
        for options in POOLS {
            let x = input(&mut rng, Input::Ties, x_shape.iter().product());
            let (y_shape, window) = result_shape(x_shape, options);
            let (_, argmax) = max_pool2d_in_float64(x_shape, window, options, &wide(&x));
            let dy = normal(&mut rng, argmax.len());
            let expected = max_pool2d_backward_in_float64(x_shape, window, &wide(&dy), &argmax);
            for (name, device) in devices::all() {
                let back = MaxPool2dBackward {
                    dy: &put(&device, &dy, &y_shape),
                    argmax: &put_u32(&device, &argmax, &y_shape),
                    x_shape,
                    options,
                };
                let dx = device.run(back).expect(name);
                let case = format!("max_pool2d_backward {x_shape:?} {options:?} on {name}");
                agree(&case, &dx, &x_shape, &expected);
            }
        }
    }
}

#[test]
fn global_average_pool_and_its_gradient() {
    let mut rng = random(52);
    let mut cases = SHAPES.to_vec();
    cases.extend([[1, 1, 1, 1], [3, 17, 1, 1], [1, 3, 65, 63], [129, 64, 2, 2]]);
    cases.extend((0..4).map(|_| std::array::from_fn(|_| size(&mut rng, 1, 20))));
    for x_shape in cases {
        let [n, c, h, w] = x_shape;
        let x: Vec<f32> = (0..n * c * h * w).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let dy = normal(&mut rng, n * c);
        let y_expected = global_average_pool_in_float64(h * w, &wide(&x));
        let dx_expected = global_average_pool_backward_in_float64(h * w, &wide(&dy));
        for (name, device) in devices::all() {
            let x = &put(&device, &x, &x_shape);
            let y = device.run(GlobalAveragePool { x }).expect(name);
            let case = format!("global_average_pool {x_shape:?} on {name}");
            agree(&case, &y, &[n, c], &y_expected);
            let back = GlobalAveragePoolBackward {
                dy: &put(&device, &dy, &[n, c]),
                x_shape,
                dtype: DType::F32,
            };
            let dx = device.run(back).expect(name);
            let case = format!("global_average_pool_backward {x_shape:?} on {name}");
            agree(&case, &dx, &x_shape, &dx_expected);
        }
    }
}

#[test]
fn f16_activations() {
    let mut rng = random(86);
    for x_shape in [[2, 3, 9, 7], [3, 5, 33, 31], [5, 16, 33, 33], [2, 64, 8, 8]] {
        let [n, c, h, w] = x_shape;
        let x = normal16(&mut rng, n * c * h * w);
        for options in [options(3, 2, 1), options(2, 2, 0), options(2, 3, 0)] {
            let (y_shape, window) = result_shape(x_shape, options);
            let (y, argmax) = max_pool2d_in_float64(x_shape, window, options, &wide(&x));
            let dy = normal16(&mut rng, y_shape.iter().product());
            let dx = max_pool2d_backward_in_float64(x_shape, window, &wide(&dy), &argmax);
            for (name, device) in devices::with_f16(devices::all()) {
                let case = format!("{x_shape:?} {options:?} on {name}");
                let x = &put16(&device, &x, &x_shape);
                let result = device.run(MaxPool2d { x, options }).expect(name);
                agree16(&format!("max_pool2d {case}"), &result.y, &y_shape, &y);
                assert_eq!(get_u32(&result.argmax), argmax, "{case}");
                let back = MaxPool2dBackward {
                    dy: &put16(&device, &dy, &y_shape),
                    argmax: &result.argmax,
                    x_shape,
                    options,
                };
                let back = device.run(back).expect(name);
                agree16(&format!("max_pool2d_backward {case}"), &back, &x_shape, &dx);
            }
        }
        let mean = global_average_pool_in_float64(h * w, &wide(&x));
        let dy = normal(&mut rng, n * c);
        let dx = global_average_pool_backward_in_float64(h * w, &wide(&dy));
        for (name, device) in devices::with_f16(devices::all()) {
            let case = format!("{x_shape:?} on {name}");
            let x = &put16(&device, &x, &x_shape);
            let y = device.run(GlobalAveragePool { x }).expect(name);
            agree(&format!("average {case}"), &y, &[n, c], &mean);
            let back = GlobalAveragePoolBackward {
                dy: &put(&device, &dy, &[n, c]),
                x_shape,
                dtype: DType::F16,
            };
            let back = device.run(back).expect(name);
            agree16(&format!("average backward {case}"), &back, &x_shape, &dx);
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let x_shape = [2, 3, 5, 5];
        let halves = options(2, 2, 0);
        let pool = |x: &Tensor, options| device.run(MaxPool2d { x, options });
        let x = &zeros(&device, &x_shape);
        refused(name, "max_pool2d: window", pool(x, options(6, 1, 0)));
        refused(name, "max_pool2d: stride 0", pool(x, options(2, 0, 0)));
        refused(name, "max_pool2d: kernel 0", pool(x, options(0, 1, 0)));
        refused(name, "max_pool2d: padding", pool(x, options(3, 1, 2)));
        for kernel in [3, usize::MAX] {
            let endless = options(kernel, 1, usize::MAX / 2);
            refused(name, "max_pool2d: endless padding", pool(x, endless));
        }
        let matrix = &zeros(&device, &[5, 5]);
        refused(name, "max_pool2d: dimensions", pool(matrix, halves));
        let integers = &zeros_u32(&device, &x_shape);
        refused(name, "max_pool2d: type", pool(integers, halves));
        let (dy, argmax) = (
            &zeros(&device, &[2, 3, 2, 2]),
            &zeros_u32(&device, &[2, 3, 2, 2]),
        );
        let backward = |what: &str, dy: &Tensor, argmax: &Tensor, x_shape| {
            let result = device.run(MaxPool2dBackward {
                dy,
                argmax,
                x_shape,
                options: halves,
            });
            refused(name, &format!("max_pool2d_backward: {what}"), result);
        };
        backward("dy", &zeros(&device, &[2, 3, 2, 3]), argmax, x_shape);
        let other = &zeros_u32(&device, &[2, 3, 4, 1]);
        backward("argmax", dy, other, x_shape);
        backward("type of argmax", dy, dy, x_shape);
        backward("x_shape", dy, argmax, [2, 3, 6, 5]);
        let fitting = MaxPool2dBackward {
            dy,
            argmax,
            x_shape,
            options: halves,
        };
        device.run(fitting).expect("arguments that fit");
        let average = |x| device.run(GlobalAveragePool { x });
        let matrix = &zeros(&device, &[2, 3]);
        refused(name, "average: dimensions", average(matrix));
        refused(name, "average: type", average(integers));
        let backward = |dy: &Tensor| {
            device.run(GlobalAveragePoolBackward {
                dy,
                x_shape,
                dtype: DType::F32,
            })
        };
        let (other, integers) = (&zeros(&device, &[3, 2]), &zeros_u32(&device, &[2, 3]));
        refused(name, "average backward: dy", backward(other));
        refused(name, "average backward: type", backward(integers));
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let backward = |dy: &Tensor, dtype| {
            device.run(GlobalAveragePoolBackward {
                dy,
                x_shape: [2, 3, 4, 4],
                dtype,
            })
        };
        let (dy16, dy) = (&zeros16(&device, &[2, 3]), &zeros(&device, &[2, 3]));
        refused_argument(name, "dy", backward(dy16, DType::F16));
        refused_argument(name, "x", backward(dy, DType::U32));
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for x_shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            let x = &zeros(&device, &x_shape);
            let options = options(3, 2, 1);
            let pooled = device.run(MaxPool2d { x, options });
            zeros_or_refused(name, "max_pool2d", pooled.map(|pooled| pooled.y));
            let average = device.run(GlobalAveragePool { x });
            zeros_or_refused(name, "average", average);
            let back = GlobalAveragePoolBackward {
                dy: &zeros(&device, &x_shape[..2]),
                x_shape,
                dtype: DType::F32,
            };
            zeros_or_refused(name, "average backward", device.run(back));
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let x = &zeros(&other, &[2, 3, 4, 4]);
        let options = options(2, 2, 0);
        refused(&case, "max_pool2d", device.run(MaxPool2d { x, options }));
        refused(&case, "average", device.run(GlobalAveragePool { x }));
        let back = MaxPool2dBackward {
            dy: &zeros(&device, &[2, 3, 2, 2]),
            argmax: &zeros_u32(&other, &[2, 3, 2, 2]),
            x_shape: [2, 3, 4, 4],
            options,
        };
        refused(&case, "argmax", device.run(back));
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let x_shape = [9, 17, 16, 15];
    let x = normal(&mut random(90), x_shape.iter().product());
    let options = options(3, 2, 1);
    same_bits(devices::all(), |device| {
        let x = &put(device, &x, &x_shape);
        let MaxPooled { y, argmax } = device.run(MaxPool2d { x, options }).expect("a pooling");
        let back = MaxPool2dBackward {
            dy: &y,
            argmax: &argmax,
            x_shape,
            options,
        };
        let dx = device.run(back).expect("a gradient");
        let average = device.run(GlobalAveragePool { x }).expect("an average");
        [
            ("max_pool2d_backward", dx),
            ("global_average_pool", average),
        ]
    });
}

#[test]
fn gradients() {
    // Windows that overlap, that do not, and that reach into the padding.
    for options in [options(3, 2, 1), options(2, 2, 0), options(3, 1, 0)] {
        let leaves = [spaced(1, &[2, 2, 5, 6])];
        check_gradients(&format!("{options:?}"), &leaves, |x| {
            x[0].max_pool2d(options)
        });
    }
    let leaves = [normal_leaf(1, &[3, 4, 2, 5])];
    check_gradients("global_average_pool", &leaves, |x| {
        x[0].global_average_pool()
    });
}

#[test]
fn the_references_have_the_right_gradients() {
    let (shape, window, options) = ([2, 2, 5, 4], [3, 2], options(3, 2, 1));
    let (x, dy) = (numbers(112, 80), numbers(113, 24));
    let (_, argmax) = max_pool2d_in_float64(shape, window, options, &x);
    let dx = max_pool2d_backward_in_float64(shape, window, &dy, &argmax).value;
    check_reference("max", &x, &dx, |x| {
        let (y, _) = max_pool2d_in_float64(shape, window, options, x);
        dot(&dy, &y.value)
    });
    let dx = global_average_pool_backward_in_float64(20, &dy[..4]).value;
    check_reference("average", &x, &dx, |x| {
        dot(&dy[..4], &global_average_pool_in_float64(20, x).value)
    });
}
