//! Max-pool and the global average, forward and back.

use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Pool2d};
use parallax::tensor::DType;

use crate::compare::{agree, get, get_u32, normal, put, put_u32, random, size, wide};
use crate::{devices, reference};

/// Window, stride and padding.
const POOLS: [[usize; 3]; 8] = [
    [3, 2, 1],
    [2, 2, 0],
    [1, 1, 0],
    [3, 1, 1],
    [7, 2, 3],
    [2, 1, 1],
    [3, 3, 0],
    [2, 3, 0],
];

const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 7, 7],
    [2, 3, 9, 8],
    [1, 17, 16, 15],
    [3, 5, 33, 31],
    [2, 64, 8, 8],
    [5, 16, 33, 33],
];

/// What the planes hold.
#[derive(Clone, Copy, Debug)]
enum Input {
    Normal,
    /// Four different numbers, so that most windows have ties.
    Ties,
    /// Below zero everywhere, so that padding counted as zero would win.
    Negative,
    /// One element in eight is not a number.
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

fn pool2d([kernel, stride, padding]: [usize; 3]) -> Pool2d {
    Pool2d {
        kernel,
        stride,
        padding,
    }
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
        for pool in POOLS.map(pool2d) {
            for kind in kinds {
                let x = input(&mut rng, kind, x_shape.iter().product());
                let y_shape = shapes::pool2d("test", x_shape, pool).expect("a case that fits");
                let window = [y_shape[2], y_shape[3]];
                let (y, argmax) = reference::pool::max_pool2d(x_shape, window, pool, &wide(&x));
                for (name, device) in devices::all() {
                    let case = format!("max_pool2d {kind:?} {x_shape:?} {pool:?} on {name}");
                    let result = device
                        .max_pool2d(&put(&device, &x, &x_shape), pool)
                        .expect(name);
                    agree(&case, &device, &result.y, &y_shape, &y);
                    assert_eq!(result.argmax.shape(), y_shape, "{case}");
                    let plane = x_shape[2] * x_shape[3];
                    for (i, &at) in get_u32(&device, &result.argmax).iter().enumerate() {
                        if y.value[i].is_nan() {
                            // Which of several is open; one of them it must be.
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
    for pool in [[1, 1, 0], [3, 2, 1], [2, 1, 1]].map(pool2d) {
        let y_shape = shapes::pool2d("test", [1, 1, 1, 1], pool).expect("a case that fits");
        for (name, device) in devices::all() {
            let result = device
                .max_pool2d(&put(&device, &[-3.0], &[1, 1, 1, 1]), pool)
                .expect(name);
            let y = get(&device, &result.y);
            assert!(y.iter().all(|&y| y == -3.0), "{pool:?} on {name}: {y:?}");
            let argmax = get_u32(&device, &result.argmax);
            assert!(
                argmax.iter().all(|&at| at == 0),
                "{pool:?} on {name}: {argmax:?}"
            );
            assert_eq!(result.y.shape(), y_shape);
        }
    }
}

#[test]
fn max_pool_gradient() {
    let mut rng = random(51);
    for x_shape in SHAPES {
        for pool in POOLS.map(pool2d) {
            let x = input(&mut rng, Input::Ties, x_shape.iter().product());
            let y_shape = shapes::pool2d("test", x_shape, pool).expect("a case that fits");
            let window = [y_shape[2], y_shape[3]];
            let (_, argmax) = reference::pool::max_pool2d(x_shape, window, pool, &wide(&x));
            let dy = normal(&mut rng, argmax.len());
            let expected =
                reference::pool::max_pool2d_backward(x_shape, window, &wide(&dy), &argmax);
            for (name, device) in devices::all() {
                let (dy, argmax) = (
                    put(&device, &dy, &y_shape),
                    put_u32(&device, &argmax, &y_shape),
                );
                let dx = device
                    .max_pool2d_backward(&dy, &argmax, x_shape, pool)
                    .expect(name);
                let case = format!("max_pool2d_backward {x_shape:?} {pool:?} on {name}");
                agree(&case, &device, &dx, &x_shape, &expected);
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
    for shape in cases {
        let [n, c, h, w] = shape;
        let x: Vec<f32> = (0..n * c * h * w).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let dy = normal(&mut rng, n * c);
        let y_expected = reference::pool::global_average_pool(h * w, &wide(&x));
        let dx_expected = reference::pool::global_average_pool_backward(h * w, &wide(&dy));
        for (name, device) in devices::all() {
            let y = device
                .global_average_pool(&put(&device, &x, &shape))
                .expect(name);
            let case = format!("global_average_pool {shape:?} on {name}");
            agree(&case, &device, &y, &[n, c], &y_expected);
            let dy = put(&device, &dy, &[n, c]);
            let dx = device
                .global_average_pool_backward(&dy, shape, DType::F32)
                .expect(name);
            let case = format!("global_average_pool_backward {shape:?} on {name}");
            agree(&case, &device, &dx, &shape, &dx_expected);
        }
    }
}
