//! Gaussian blur, as `torchvision.transforms.v2.functional.gaussian_blur`.
//!
//! In each dimension, a pixel at distance `d <= kernel_size / 2` has a weight proportional to
//! `exp(-d^2 / (2 sigma^2))`, and the weights add up to 1. Images continue beyond their borders as
//! their reflection, without the border pixel itself.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use super::images::one_per_image;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::Tensor;

/// The blurred images of `x [N, C, H, W]`, f32.
pub struct GaussianBlur<'a> {
    pub x: &'a Tensor,
    /// Pixels along a side of the kernel: an odd number, half of which is less than a side of the
    /// images.
    pub kernel_size: usize,
    /// The standard deviation for each image, in pixels. 0 leaves an image unchanged.
    pub sigmas: &'a [f32],
}

impl GaussianBlur<'_> {
    /// The weights of one dimension, `kernel_size` per image.
    fn weights(&self) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.sigmas.len() * self.kernel_size);
        for &sigma in self.sigmas {
            let weight = |i: usize| {
                let distance = i.abs_diff(self.kernel_size / 2) as f64;
                match distance {
                    0.0 => 1.0,
                    distance => (-0.5 * (distance / f64::from(sigma)).powi(2)).exp(),
                }
            };
            let sum: f64 = (0..self.kernel_size).map(weight).sum();
            weights.extend((0..self.kernel_size).map(|i| (weight(i) / sum) as f32));
        }
        weights
    }
}

impl Op for GaussianBlur<'_> {
    const NAME: &'static str = "gaussian_blur";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = self.x.nchw("", "x")?;
        check.f32("x", self.x)?;
        let [n, _, h, w] = sizes;
        one_per_image(check, n, self.sigmas.len())?;
        let size = self.kernel_size;
        if size.is_multiple_of(2) || size / 2 >= h.min(w) {
            return Err(check.error(format!(
                "the kernel size is {size} and the images have {h} x {w} pixels; expected an odd number, half of \
                 which is less than a side"
            )));
        }
        let is_usable = |sigma: &f32| sigma.is_finite() && *sigma >= 0.0;
        if let Some(sigma) = self.sigmas.iter().find(|sigma| !is_usable(sigma)) {
            return Err(check.error(format!(
                "a standard deviation is {sigma}; expected a finite number, 0 or more"
            )));
        }
        check.host(self.sigmas);
        Ok(sizes)
    }

    fn flops(&self, _: [usize; 4]) -> u64 {
        4 * (self.kernel_size * self.x.len()) as u64
    }
}
