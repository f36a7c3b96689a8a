//! Uniform random numbers from a counter-based generator.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::Tensor;

/// The key of random numbers. The same key gives the same integers on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseKey {
    pub seed: u64,
    /// Separates this draw from others under the same seed, for example by step and purpose.
    pub stream: u64,
}

impl NoiseKey {
    /// The words of seed and stream, low before high.
    fn words(self) -> [[u32; 2]; 2] {
        [self.seed, self.stream].map(|x| [x as u32, (x >> 32) as u32])
    }
}

/// Numbers uniform in `[low, high)`: element i is `low + (high - low) (philox(key, i) >> 8) 2^-24`,
/// in f32.
///
/// Philox4x32-10 (Salmon et al. 2011) has the two words of `seed` as key and (i / 4, 0, the two
/// words of `stream`) as counter. Element i is word i mod 4.
pub struct Uniform<'a> {
    pub key: NoiseKey,
    pub low: f32,
    pub high: f32,
    pub shape: &'a [usize],
}

impl Op for Uniform<'_> {
    const NAME: &'static str = "uniform";
    /// The number of elements.
    type Sizes = usize;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        let (low, high) = (self.low, self.high);
        if !(low.is_finite() && high.is_finite() && low <= high) {
            return Err(check.error(format!(
                "low {low} and high {high} are not a range; expected finite numbers, low at most high"
            )));
        }
        check.elements(self.shape)
    }

    fn flops(&self, len: usize) -> u64 {
        2 * len as u64
    }
}
