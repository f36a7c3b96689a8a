//! Random input, and the comparison of a device's result with what is expected.

use parallax::device::philox::Philox;
use parallax::device::{Device, read_f32, upload_f32};
use parallax::tensor::Tensor;

/// The unit roundoff of f32.
pub const U: f64 = 1.0 / 16_777_216.0;

/// The generator of one test. The seed is fixed, so that a failure repeats.
pub fn random(stream: u32) -> Philox {
    Philox::new(31, [stream, 0, 0])
}

/// Pixels in [0, 1): some flat grey, some black, some white, since those are the special cases of colours.
pub fn pixels(rng: &mut Philox, [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n * c * h * w).map(|_| rng.unit()).collect();
    for place in 0..n * h * w {
        let (image, place) = (place / (h * w), place % (h * w));
        let value = match rng.below(12) {
            0 => 0.0,
            1 => 1.0,
            2 => 0.25,
            _ => continue,
        };
        for channel in 0..c {
            x[(image * c + channel) * h * w + place] = value;
        }
    }
    x
}

pub fn put(device: &Device, data: &[f32], shape: &[usize]) -> Tensor {
    upload_f32(device, data, shape).expect("the upload of a test's input")
}

pub fn get(device: &Device, x: &Tensor) -> Vec<f32> {
    read_f32(device, x).expect("the download of a test's result")
}

/// Fails unless element i lies within `bound(i)` of `expected[i]`; names the worst.
pub fn agree(case: &str, actual: &[f32], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(actual.len(), expected.len(), "{case}: elements");
    let excess = |i: usize| {
        let error = (f64::from(actual[i]) - expected[i]).abs();
        if error == 0.0 {
            0.0
        } else if error.is_nan() {
            f64::INFINITY
        } else {
            error / bound(i)
        }
    };
    let worst = (0..actual.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b)));
    if let Some(i) = worst.filter(|&i| excess(i) > 1.0) {
        panic!(
            "{case}: element {i} is {}, expected {} within {:e}: {} times that",
            actual[i],
            expected[i],
            bound(i),
            excess(i)
        );
    }
}
