//! Comparisons of results with expected values, and arguments that are refused.

use super::inputs::SEED;
use super::tester::{Candidate, Tester, difference};
use super::{Expected, devices};
use crate::device::Device;
use crate::device::gpu::variants::Variant;
use crate::error::{Error, Result, listed};
use crate::ops::Cast;
use crate::tensor::{DType, Tensor};

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

/// Pairs of devices that do not share tensors, with a description: the device that runs an
/// operation, and the device of an argument.
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

/// Fails unless the call, whose argument has no elements, returned zeros or failed with a shape
/// error.
pub fn zeros_or_refused(device: &str, what: &str, result: Result<Tensor>) {
    match result {
        Ok(y) => {
            let y = get(&y);
            assert!(y.iter().all(|y| *y == 0.0), "{what} on {device}: {y:?}");
        }
        Err(_) => refused(device, what, result),
    }
}

/// Fails unless `x` has this shape and every element is within its bound. The message names `case`
/// and the worst element.
pub fn agree(case: &str, x: &Tensor, shape: &[usize], expected: &Expected) {
    assert_eq!(x.shape(), shape, "{case}: shape of the result");
    if let (_, Some(difference)) = difference(&get(x), shape, expected) {
        panic!("{case}: {difference}");
    }
}

/// Fails unless a CPU and a GPU that round the factors of f32 products agree with the expected
/// values of the cases.
pub fn check_cases_with_rounding(cases: impl Fn(&Tester) -> Result<()>) {
    let gpu = devices::open_gpu(false, None).into();
    let candidates = [("rounding cpu", Device::cpu()), ("rounding gpu", gpu)];
    let candidates = candidates.map(|(name, device)| Candidate::rounding(name, device));
    check_candidates(candidates.into(), cases);
}

/// Fails unless every device agrees with the expected values of the cases.
pub fn check_cases(cases: impl Fn(&Tester) -> Result<()>) {
    let candidates = devices::all_variants().into_iter().map(|(name, device)| {
        let all = devices::all();
        let variant = Variant::ALL
            .into_iter()
            .find(|variant| variant.name() == name);
        match name {
            devices::SLICED => Candidate::sliced(name, device),
            _ if all.iter().any(|(own, _)| *own == name) => Candidate::new(name, device),
            _ => Candidate::of_products(name, device, variant),
        }
    });
    check_candidates(candidates.collect(), cases);
}

/// Fails unless these devices agree with the expected values of the cases.
fn check_candidates(candidates: Vec<Candidate>, cases: impl Fn(&Tester) -> Result<()>) {
    let tester = Tester::new(candidates, SEED, None);
    cases(&tester).expect("every case runs");
    let comparisons = tester.take_comparisons();
    assert!(!comparisons.is_empty(), "no result was compared");
    let failures: Vec<String> = comparisons.into_iter().filter_map(|c| c.failure).collect();
    assert!(failures.is_empty(), "{}", listed(failures, "\n"));
}

#[test]
fn a_wrong_element_is_found_and_named() {
    let expected = Expected::elementwise(vec![1.0, 2.0, 3.0, f64::NAN]);
    let right = [1.0, 2.0, 3.0, f32::NAN];
    assert_eq!(difference(&right, &[2, 2], &expected), (0.0, None));
    // An error of 0.00001 is far more than 4 ulp of 3.
    for wrong in [3.000_01, f32::NAN, f32::INFINITY] {
        let (_, found) = difference(&[1.0, 2.0, wrong, f32::NAN], &[2, 2], &expected);
        let message = found.expect("a difference");
        assert!(
            message.contains("1 of 4") && message.contains("[1, 0]"),
            "{message}"
        );
    }
    assert!(
        difference(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &expected)
            .1
            .is_some()
    );
}
