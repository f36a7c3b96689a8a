//! Random input of tests, and its conversion between float types.

use half::f16;

use crate::philox::Philox;

/// The seed of the unit tests.
pub const SEED: u64 = 20;

/// The generator of one test. The seed is fixed, so failures are reproducible.
#[cfg(test)]
pub fn random(stream: u32) -> Philox {
    Philox::new(SEED, [stream, 0, 0])
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

/// The bits of floats, for comparisons that allow no difference.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
