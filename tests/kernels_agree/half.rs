//! The kernels whose activations may be f16, on every device, against the same float64 loops on inputs that are f16
//! numbers. What is stored as f16 may be off by what the f32 arithmetic before it allows, and by the one rounding.

use half::f16;
use parallax::device::Device;
use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Conv2d, Pool2d};
use parallax::tensor::{DType, Tensor};

use crate::compare::{agree, get, get_u32, narrow, normal, put, put_u32, random, wide};
use crate::reference::Expected;
use crate::{devices, reference};

/// The nearest f16 numbers, as f32.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| f16::from_f32(x).to_f32()).collect()
}

/// Standard normal numbers that f16 has.
fn normal16(rng: &mut Philox, count: usize) -> Vec<f32> {
    rounded(&normal(rng, count))
}

/// Numbers that f16 has, as a tensor of them.
fn put16(device: &Device, x: &[f32], shape: &[usize]) -> Tensor {
    let y = device.cast(&put(device, x, shape), DType::F16);
    y.expect("the cast of a test's input")
}

/// The elements of a tensor that must be f16.
fn get16(device: &Device, x: &Tensor) -> Vec<f32> {
    assert_eq!(x.dtype(), DType::F16);
    get(
        device,
        &device.cast(x, DType::F32).expect("the cast of a result"),
    )
}

/// As [`agree`], where the result must be f16.
fn agree16(case: &str, device: &Device, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.dtype(), DType::F16, "{case}");
    let x = device.cast(x, DType::F32).expect(case);
    agree(case, device, &x, shape, &expected.clone().stored_as_f16());
}

/// Sizes around words, vec4s, pairs of vec4s, workgroups and slices; odd ones end in half a word.
const COUNTS: [usize; 11] = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];

#[test]
fn cast_rounds_to_the_nearest_and_back_is_exact() {
    let mut rng = random(80);
    let mut special = vec![
        0.0,
        -0.0,
        1.0,
        // Halfway between two f16 numbers: to the even one.
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        -1.0 - 1.0 / 2048.0,
        // The largest, the last that is rounded to it, and the first that is not.
        65_504.0,
        65_519.0,
        65_520.0,
        -1e9,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        // The smallest normal one, subnormal ones, halfway to zero, and smaller.
        6.103_515_6e-5,
        3.1e-5,
        -5.960_464_5e-8,
        2.980_232_2e-8,
        2.98e-8,
        1e-30,
    ];
    special.extend((0..4000).map(|i| rng.normal() * (f32::from(i as u16 % 40) - 25.0).exp2()));
    let of_normals = COUNTS.map(|count| normal(&mut rng, count));
    for x in of_normals.iter().chain([&special]) {
        let expected = rounded(x);
        for (name, device) in devices::with_f16(devices::all()) {
            let half = put16(&device, x, &[x.len()]);
            assert_eq!(half.dtype(), DType::F16);
            let back = get16(&device, &half);
            for (i, (&back, &expected)) in back.iter().zip(&expected).enumerate() {
                let same =
                    back.to_bits() == expected.to_bits() || back.is_nan() && expected.is_nan();
                assert!(same, "{} becomes {back} and not {expected} on {name}", x[i]);
            }
            let copy = device.copy(&half).expect(name);
            let bytes = device.download(&copy).expect(name).wait().expect(name);
            assert_eq!(bytes.len(), 2 * x.len(), "{name}");
            for (bytes, expected) in bytes.chunks(2).zip(&expected) {
                let found = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                assert!(
                    found == *expected || found.is_nan() && expected.is_nan(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn zeros_are_zero() {
    for (name, device) in devices::with_f16(devices::all()) {
        for count in COUNTS {
            let x = device.zeros(&[count], DType::F16).expect(name);
            assert!(get16(&device, &x).iter().all(|&x| x == 0.0), "{name}");
        }
    }
}

#[test]
fn element_by_element() {
    let mut rng = random(81);
    for count in COUNTS {
        let [x, y] = std::array::from_fn(|_| normal16(&mut rng, count));
        let factor = rng.uniform(-3.0, 3.0);
        let relu = reference::elementwise::relu(&wide(&x));
        let relu_backward = reference::elementwise::relu_backward(&wide(&y), &wide(&x));
        let add = reference::elementwise::add(&wide(&x), &wide(&y));
        let axpy = reference::elementwise::axpy(f64::from(factor), &wide(&x), &wide(&y));
        for (name, device) in devices::with_f16(devices::all()) {
            let case = |what: &str| format!("{what} of {count} on {name}");
            let [dx, dy] = [&x, &y].map(|x| put16(&device, x, &[count]));
            let check = |what: &str, y: &Tensor, expected: &Expected| {
                agree16(&case(what), &device, y, &[count], expected);
            };
            check("add", &device.add(&dx, &dy).expect(name), &add);
            check("relu", &device.relu(&dx).expect(name), &relu);
            let back = device.relu_backward(&dy, &dx).expect(name);
            check("relu_backward", &back, &relu_backward);
            let back = device.copy(&dy).expect(name);
            device.relu_backward_in_place(&back, &dx).expect(name);
            check("relu_backward in place", &back, &relu_backward);
            device.axpy(factor, &dx, &dy).expect(name);
            check("axpy", &dy, &axpy);
        }
    }
}

/// A loss scale that is too large is found by its infinities: what is too large for f16 must become one.
#[test]
fn sums_too_large_for_f16_are_infinite() {
    let largest = 65_504.0;
    let x = [
        largest,
        largest,
        largest,
        -largest,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1.0,
        largest,
    ];
    let y = [
        15.0,
        16.0,
        largest,
        -largest,
        1.0,
        -1.0,
        1.0,
        f32::INFINITY,
        -largest,
    ];
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [8, 9] {
            let [dx, dy] = [&x, &y].map(|x| put16(&device, &x[..count], &[count]));
            let sums = get16(&device, &device.add(&dx, &dy).expect(name));
            device.axpy(1.0, &dx, &dy).expect(name);
            for found in [sums, get16(&device, &dy)] {
                for (i, &found) in found.iter().enumerate() {
                    let expected = f16::from_f32(x[i] + y[i]).to_f32();
                    assert!(
                        found == expected || found.is_nan() && expected.is_nan(),
                        "{} + {} of {count} becomes {found} and not {expected} on {name}",
                        x[i],
                        y[i]
                    );
                }
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_found_wherever_it_stands() {
    let mut rng = random(82);
    for (name, device) in devices::with_f16(devices::all()) {
        for count in COUNTS {
            let mut x = normal16(&mut rng, count);
            let flag_of = |x: &[f32]| {
                let flag = put_u32(&device, &[0], &[1]);
                device
                    .check_finite(&put16(&device, x, &[count]), &flag)
                    .expect(name);
                get_u32(&device, &flag)[0]
            };
            x[0] = 65_504.0;
            assert_eq!(flag_of(&x), 0, "{count} on {name}");
            for place in [0, count / 2, count - 1] {
                for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let before = std::mem::replace(&mut x[place], bad);
                    assert_eq!(flag_of(&x), 1, "{bad} at {place} of {count} on {name}");
                    x[place] = before;
                }
            }
        }
    }
}

/// What lies in the memory behind the last element is not looked at.
#[test]
fn a_number_behind_the_last_is_not_looked_at() {
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [3, 65] {
            for _ in 0..4 {
                drop(put16(&device, &vec![f32::NAN; count + 1], &[count + 1]));
            }
            let flag = put_u32(&device, &[0], &[1]);
            let x = put16(&device, &vec![1.0; count], &[count]);
            device.check_finite(&x, &flag).expect(name);
            assert_eq!(get_u32(&device, &flag), [0], "{count} on {name}");
        }
    }
}

/// Input, weight, stride and padding of convolutions: odd planes, slices, single pixels, ragged tiles, and those that
/// the CPU device takes by Winograd's method, keeping kernels or inputs.
const CONVOLUTIONS: [([usize; 4], [usize; 4], usize, usize); 14] = [
    ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0),
    ([3, 5, 1, 1], [17, 5, 1, 1], 1, 0),
    ([2, 3, 9, 7], [5, 3, 3, 3], 1, 1),
    ([2, 3, 9, 8], [5, 3, 7, 7], 2, 3),
    ([2, 3, 6, 6], [5, 3, 1, 1], 2, 0),
    ([2, 17, 33, 31], [5, 17, 3, 3], 2, 1),
    ([9, 17, 13, 11], [64, 17, 1, 1], 1, 0),
    ([129, 3, 4, 4], [3, 3, 3, 3], 1, 1),
    ([3, 61, 9, 7], [59, 61, 3, 3], 1, 1),
    ([17, 16, 17, 17], [17, 16, 3, 3], 1, 1),
    ([1, 32, 7, 7], [33, 32, 3, 3], 1, 1),
    ([41, 35, 4, 4], [33, 35, 3, 3], 1, 1),
    ([17, 32, 4, 4], [70, 32, 3, 3], 1, 1),
    ([2, 37, 30, 29], [35, 37, 3, 3], 1, 1),
];

#[test]
fn convolution_and_its_gradients() {
    let mut rng = random(83);
    for (x_shape, w_shape, stride, padding) in CONVOLUTIONS {
        let conv = Conv2d { stride, padding };
        let g = shapes::conv2d("test", x_shape, w_shape, conv).expect("a case that fits");
        let count = |shape: [usize; 4]| shape.iter().product::<usize>();
        let x = normal16(&mut rng, count(x_shape));
        let dy = normal16(&mut rng, count(g.y_shape()));
        // The weight is f32, and rounded by the kernel.
        let w = normal(&mut rng, count(w_shape));
        let w16 = wide(&rounded(&w));
        let y_expected = reference::conv2d::conv2d(&g, &wide(&x), &w16);
        let dx_expected = reference::conv2d::conv2d_dx(&g, &wide(&dy), &w16);
        let dw_expected = reference::conv2d::conv2d_dw(&g, &wide(&dy), &wide(&x));
        for (name, device) in devices::with_f16(devices::all_variants()) {
            if name == devices::SLICED && !super::conv2d::fits(&g) {
                continue;
            }
            let case = format!("{x_shape:?} * {w_shape:?} {conv:?} on {name}");
            let (x, w) = (put16(&device, &x, &x_shape), put(&device, &w, &w_shape));
            let dy = put16(&device, &dy, &g.y_shape());
            let y = device.conv2d(&x, &w, conv).expect(name);
            agree16(
                &format!("conv2d {case}"),
                &device,
                &y,
                &g.y_shape(),
                &y_expected,
            );
            let dx = device.conv2d_dx(&dy, &w, x_shape, conv).expect(name);
            agree16(
                &format!("conv2d_dx {case}"),
                &device,
                &dx,
                &x_shape,
                &dx_expected,
            );
            let dw = device.conv2d_dw(&dy, &x, w_shape, conv).expect(name);
            agree(
                &format!("conv2d_dw {case}"),
                &device,
                &dw,
                &w_shape,
                &dw_expected,
            );
        }
    }
}

#[test]
fn pooling() {
    let mut rng = random(86);
    for x_shape in [[2, 3, 9, 7], [3, 5, 33, 31], [5, 16, 33, 33], [2, 64, 8, 8]] {
        let [n, c, h, w] = x_shape;
        let x = normal16(&mut rng, n * c * h * w);
        for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (2, 3, 0)] {
            let pool = Pool2d {
                kernel,
                stride,
                padding,
            };
            let y_shape = shapes::pool2d("test", x_shape, pool).expect("a case that fits");
            let window = [y_shape[2], y_shape[3]];
            let (y, argmax) = reference::pool::max_pool2d(x_shape, window, pool, &wide(&x));
            let dy = normal16(&mut rng, y_shape.iter().product());
            let dx = reference::pool::max_pool2d_backward(x_shape, window, &wide(&dy), &argmax);
            for (name, device) in devices::with_f16(devices::all()) {
                let case = format!("{x_shape:?} {pool:?} on {name}");
                let result = device
                    .max_pool2d(&put16(&device, &x, &x_shape), pool)
                    .expect(name);
                agree16(
                    &format!("max_pool2d {case}"),
                    &device,
                    &result.y,
                    &y_shape,
                    &y,
                );
                assert_eq!(get_u32(&device, &result.argmax), argmax, "{case}");
                let dy = put16(&device, &dy, &y_shape);
                let back = device
                    .max_pool2d_backward(&dy, &result.argmax, x_shape, pool)
                    .expect(name);
                let case = format!("max_pool2d_backward {case}");
                agree16(&case, &device, &back, &x_shape, &dx);
            }
        }
        let mean = reference::pool::global_average_pool(h * w, &wide(&x));
        let dy = normal(&mut rng, n * c);
        let dx = reference::pool::global_average_pool_backward(h * w, &wide(&dy));
        for (name, device) in devices::with_f16(devices::all()) {
            let case = format!("{x_shape:?} on {name}");
            let y = device
                .global_average_pool(&put16(&device, &x, &x_shape))
                .expect(name);
            agree(&format!("average {case}"), &device, &y, &[n, c], &mean);
            let dy = put(&device, &dy, &[n, c]);
            let back = device.global_average_pool_backward(&dy, x_shape, DType::F16);
            let case = format!("average backward {case}");
            agree16(&case, &device, &back.expect(name), &x_shape, &dx);
        }
    }
}

/// An argument of the other type, or a kernel that has no f16, is refused by a shape error that names the argument.
#[test]
fn types_that_do_not_fit_are_named() {
    let conv = Conv2d {
        stride: 1,
        padding: 1,
    };
    for (name, d) in devices::with_f16(devices::all()) {
        let half = |shape: &[usize]| d.zeros(shape, DType::F16).expect(name);
        let float = |shape: &[usize]| d.zeros(shape, DType::F32).expect(name);
        let shape = [2, 3, 4, 4];
        let (x, x16) = (float(&shape), half(&shape));
        let to_u32 = DType::U32;
        for (argument, result) in [
            ("b", d.add(&x, &x16)),
            ("y", d.axpy(1.0, &x, &x16).map(|()| x.clone())),
            ("y", d.relu_backward(&x16, &x)),
            ("w", d.conv2d(&x16, &half(&[3, 3, 3, 3]), conv)),
            ("w", d.conv2d_dx(&x16, &half(&[3, 3, 3, 3]), shape, conv)),
            ("dy", d.conv2d_dw(&x, &x16, [3, 3, 3, 3], conv)),
            (
                "dy",
                d.global_average_pool_backward(&half(&[2, 3]), shape, DType::F16),
            ),
            (
                "x",
                d.global_average_pool_backward(&float(&[2, 3]), shape, to_u32),
            ),
            ("dtype", d.cast(&x, to_u32)),
            ("x", d.cast(&put_u32(&d, &[1], &[1]), DType::F16)),
            ("x", d.scale(2.0, &x16)),
            ("x", d.sum(&x16)),
            ("a", d.concat(&x16, &x16)),
            ("x", d.slice(&x16, 0, 1)),
            (
                "a",
                d.gemm(Default::default(), &half(&[2, 2]), &half(&[2, 2])),
            ),
        ] {
            let error = result.map(drop).expect_err("the types do not fit");
            let text = error.to_string();
            assert!(matches!(error, parallax::Error::Shape { .. }), "{text}");
            let named = text.contains(&format!("{argument} is"))
                || text.contains(&format!("{argument} holds"));
            assert!(named, "'{argument}' on {name}: {text}");
        }
    }
}
