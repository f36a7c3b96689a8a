//! Random input, and the comparison of results with expected values.

use half::f16;

use super::accuracy::FLUSH;
use super::{Expected, devices};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Cast;
use crate::philox::Philox;
use crate::tensor::{DType, Tensor};

/// The generator of one test. The seed is fixed, so failures are reproducible.
pub fn random(stream: u32) -> Philox {
    Philox::new(20, [stream, 0, 0])
}

/// Standard normal numbers.
pub fn normal(rng: &mut Philox, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.normal()).collect()
}

/// Pixels in [0, 1) of images N, C, H, W. Some are grey, black or white: the special cases of hues.
pub fn pixels(rng: &mut Philox, [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n * c * h * w).map(|_| rng.unit()).collect();
    for pixel in 0..n * h * w {
        let (image, pixel) = (pixel / (h * w), pixel % (h * w));
        let value = match rng.below(12) {
            0 => 0.0,
            1 => 1.0,
            2 => 0.25,
            _ => continue,
        };
        for channel in 0..c {
            x[(image * c + channel) * h * w + pixel] = value;
        }
    }
    x
}

/// A random size in `low..=high`.
pub fn size(rng: &mut Philox, low: u32, high: u32) -> usize {
    (low + rng.below(high - low + 1)) as usize
}

/// The same numbers in float64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// The nearest f32 numbers.
pub fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// The nearest f16 numbers, as f32.
pub fn rounded16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| f16::from_f32(x).to_f32()).collect()
}

/// Standard normal numbers, rounded to f16.
pub fn normal16(rng: &mut Philox, count: usize) -> Vec<f32> {
    rounded16(&normal(rng, count))
}

/// Copies floats to the device.
pub fn put(device: &Device, data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, device).expect("the upload of a test's input")
}

/// Copies unsigned integers to the device.
pub fn put_u32(device: &Device, data: &[u32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, device).expect("the upload of a test's input")
}

/// Copies f16 numbers, given as f32, to the device as an f16 tensor.
pub fn put16(device: &Device, data: &[f32], shape: &[usize]) -> Tensor {
    let (x, dtype) = (&put(device, data, shape), DType::F16);
    device
        .run(Cast { x, dtype })
        .expect("the cast of a test's input")
}

/// Zeros on the device.
pub fn zeros(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, device).expect("a small tensor")
}

/// u32 zeros on the device.
pub fn zeros_u32(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::U32, device).expect("a small tensor")
}

/// f16 zeros on the device.
pub fn zeros16(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F16, device).expect("a small tensor")
}

/// The elements of an f32 tensor.
pub fn get(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("the download of a test's result")
}

/// The elements of a u32 tensor.
pub fn get_u32(x: &Tensor) -> Vec<u32> {
    x.to_vec().expect("the download of a test's result")
}

/// The elements of an f16 tensor, as f32.
pub fn get16(x: &Tensor) -> Vec<f32> {
    assert_eq!(x.dtype(), DType::F16);
    let dtype = DType::F32;
    get(&x
        .device()
        .run(Cast { x, dtype })
        .expect("the cast of a test's result"))
}

/// Pairs of devices that do not share tensors, with a description: the device that runs an operation,
/// and the device of an argument.
pub fn different_devices() -> Vec<(String, Device, Device)> {
    let all = devices::all();
    let pairs = (0..all.len()).flat_map(|i| (0..all.len()).map(move |j| (i, j)));
    pairs
        .filter(|(i, j)| i != j)
        .map(|(i, j)| {
            let case = format!("{}, with a tensor on {},", all[i].0, all[j].0);
            (case, all[i].1.clone(), all[j].1.clone())
        })
        .collect()
}

/// Fails unless `result` is a shape error with an operation and a message.
pub fn refused<T>(device: &str, what: &str, result: Result<T>) {
    match result {
        Ok(_) => panic!("{what} on {device} was accepted"),
        Err(Error::Shape { operation, message }) => assert!(
            !operation.is_empty() && !message.is_empty(),
            "{what} on {device}: '{operation}: {message}'"
        ),
        Err(error) => panic!("{what} on {device}: {error:?} is not a shape error"),
    }
}

/// Fails unless the call failed with a shape error that names this argument.
pub fn refused_argument<T>(device: &str, argument: &str, result: Result<T>) {
    match result {
        Ok(_) => panic!("{argument} on {device}: was accepted"),
        Err(error @ Error::Shape { .. }) => {
            let text = error.to_string();
            let is_named = text.contains(&format!(" {argument} is "));
            assert!(is_named, "'{argument}' on {device}: {text}");
        }
        Err(error) => panic!("{argument} on {device}: {error:?} is not a shape error"),
    }
}

/// Fails unless the call fails on every device with the same shape error, which contains `part`.
pub fn refused_everywhere<T>(part: &str, call: impl Fn(&Device) -> Result<T>) {
    let messages = devices::all().map(|(name, device)| match call(&device) {
        Err(error @ Error::Shape { .. }) => error.to_string(),
        Err(error) => panic!("'{part}' on {name}: {error:?} is not a shape error"),
        Ok(_) => panic!("'{part}' on {name}: was accepted"),
    });
    assert!(messages[0].contains(part), "'{part}': {}", messages[0]);
    let is_same = messages.iter().all(|message| *message == messages[0]);
    assert!(is_same, "'{part}': {messages:?}");
}

/// Fails unless the call, whose argument has no elements, returned zeros or failed with a shape error.
pub fn zeros_or_refused(device: &str, what: &str, result: Result<Tensor>) {
    match result {
        Ok(y) => {
            let y = get(&y);
            assert!(y.iter().all(|y| *y == 0.0), "{what} on {device}: {y:?}");
        }
        Err(_) => refused(device, what, result),
    }
}

/// As [`agree`], for a result that must be f16.
pub fn agree16(case: &str, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.shape(), shape, "{case}: shape of the result");
    let expected = expected.clone().stored_as_f16();
    if let Some(difference) = disagreement(&get16(x), shape, &expected) {
        panic!("{case}: {difference}");
    }
}

/// Fails unless `x` has this shape and every element is within its bound. The message names `case`
/// and the worst element.
pub fn agree(case: &str, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.shape(), shape, "{case}: shape of the result");
    if let Some(difference) = disagreement(&get(x), shape, expected) {
        panic!("{case}: {difference}");
    }
}

/// A description of the difference between `actual` and `expected`, if there is one.
fn disagreement(actual: &[f32], shape: &[usize], expected: &Expected) -> Option<String> {
    assert_eq!(actual.len(), expected.value.len(), "elements");
    // The error as a multiple of its bound; infinite if one of both numbers is not finite.
    let excess = |i: usize| {
        let (actual, value) = (f64::from(actual[i]), expected.value[i]);
        if value.is_nan() && actual.is_nan() || actual == value {
            0.0
        } else if !value.is_finite() || !actual.is_finite() {
            f64::INFINITY
        } else {
            (actual - value).abs() / (expected.bound[i] + FLUSH)
        }
    };
    let wrong: Vec<usize> = (0..actual.len()).filter(|&i| excess(i) > 1.0).collect();
    let worst = *wrong
        .iter()
        .max_by(|&&a, &&b| excess(a).total_cmp(&excess(b)))?;
    Some(format!(
        "{} of {} elements are wrong; the worst, at {:?} of {shape:?}, is {:e}; expected {:e} \
         within {:.1e} (the error is {:.1e}, {:.1} times the bound)",
        wrong.len(),
        actual.len(),
        position(worst, shape),
        actual[worst],
        expected.value[worst],
        expected.bound[worst],
        (f64::from(actual[worst]) - expected.value[worst]).abs(),
        excess(worst),
    ))
}

/// The coordinates of element `index`.
fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut coordinates = vec![0; shape.len()];
    for (coordinate, size) in coordinates.iter_mut().zip(shape).rev() {
        *coordinate = index % size;
        index /= size;
    }
    coordinates
}

/// The bits of floats, for comparisons that allow no difference.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_wrong_element_is_found_and_named() {
    let expected = Expected::elementwise(vec![1.0, 2.0, 3.0, f64::NAN]);
    let right = [1.0, 2.0, 3.0, f32::NAN];
    assert_eq!(disagreement(&right, &[2, 2], &expected), None);
    // An error of 0.00001 is far more than 4 ulp of 3.
    for wrong in [3.000_01, f32::NAN, f32::INFINITY] {
        let found = disagreement(&[1.0, 2.0, wrong, f32::NAN], &[2, 2], &expected);
        let message = found.expect("a difference");
        assert!(
            message.contains("1 of 4") && message.contains("[1, 0]"),
            "{message}"
        );
    }
    assert!(disagreement(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &expected).is_some());
}
