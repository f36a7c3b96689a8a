//! Random input, and the comparison of a device's result with what is expected.

use parallax::device::philox::Philox;
use parallax::device::{Device, read_f32, read_u32, upload_f32, upload_u32};
use parallax::tensor::Tensor;

use crate::reference::Expected;
use crate::reference::accuracy::FLUSH;

/// The generator of one test. The seed is fixed, so that a failure repeats.
pub fn random(stream: u32) -> Philox {
    Philox::new(20, [stream, 0, 0])
}

/// Standard normal numbers.
pub fn normal(rng: &mut Philox, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.normal()).collect()
}

/// A size between `low` and `high`, both possible.
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

/// Copies floats to the device.
pub fn put(device: &Device, data: &[f32], shape: &[usize]) -> Tensor {
    upload_f32(device, data, shape).expect("the upload of a test's input")
}

/// Copies unsigned integers to the device.
pub fn put_u32(device: &Device, data: &[u32], shape: &[usize]) -> Tensor {
    upload_u32(device, data, shape).expect("the upload of a test's input")
}

/// Waits for a float tensor.
pub fn get(device: &Device, x: &Tensor) -> Vec<f32> {
    read_f32(device, x).expect("the download of a test's result")
}

/// Waits for a u32 tensor.
pub fn get_u32(device: &Device, x: &Tensor) -> Vec<u32> {
    read_u32(device, x).expect("the download of a test's result")
}

/// Fails unless `x` has this shape and every element lies within its bound; names `case` and the worst element.
pub fn agree(case: &str, device: &Device, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.shape(), shape, "{case}: shape of the result");
    if let Some(difference) = disagreement(&get(device, x), shape, expected) {
        panic!("{case}: {difference}");
    }
}

/// What is wrong with `actual`, if anything is.
fn disagreement(actual: &[f32], shape: &[usize], expected: &Expected) -> Option<String> {
    assert_eq!(actual.len(), expected.value.len(), "elements");
    // Errors as multiples of their bound; what is not a number where it should be is worst of all.
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
        "{} of {} elements are wrong; the worst, at {:?} of {shape:?}, is {:e} and should be {:e} to {:.1e} \
         (off by {:.1e}, {:.1} times that)",
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
    // 0.00001 off 3 is far more than 4 ulp.
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
