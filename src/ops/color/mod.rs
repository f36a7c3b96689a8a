//! Colour changes, as the functions of `torchvision.transforms.v2.functional` on float images.
//!
//! With `blend(f, a, b) = clamp(f a + (1 - f) b, 0, 1)` and `luma = 0.2989 R + 0.587 G + 0.114 B`:
//! brightness is `clamp(f x, 0, 1)`, contrast is `blend(f, x, mean of the image's luma)`,
//! saturation is `blend(f, x, luma)`, hue adds f turns to the hue in HSV, and grayscale sets all
//! channels to the luma.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use super::images::{check_rgb, one_per_image};
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::Tensor;

/// One step of a colour change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ColorStep {
    /// No change.
    Nothing = 0,
    Brightness = 1,
    Contrast = 2,
    Saturation = 3,
    Hue = 4,
    /// All three channels become the luma. The factor is not used.
    Grayscale = 5,
}

/// The number of steps of a colour change.
const STEPS: usize = 5;

/// Up to five colour changes of one image, in their order.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ColorTransform {
    steps: [u32; STEPS],
    factors: [f32; STEPS],
}

impl ColorTransform {
    /// Steps with their factors, which are applied in this order.
    ///
    /// # Panics
    /// If there are more than five steps.
    pub fn new(steps: &[(ColorStep, f32)]) -> Self {
        assert!(
            steps.len() <= STEPS,
            "a colour transform has at most {STEPS} steps"
        );
        let mut transform = ColorTransform {
            steps: [ColorStep::Nothing as u32; STEPS],
            factors: [0.0; STEPS],
        };
        for (i, (step, factor)) in steps.iter().enumerate() {
            transform.steps[i] = *step as u32;
            transform.factors[i] = *factor;
        }
        transform
    }
}

/// One colour change of each image of `x [N, 3, H, W]`.
pub struct ColorTransforms<'a> {
    pub x: &'a Tensor,
    pub transforms: &'a [ColorTransform],
}

impl Op for ColorTransforms<'_> {
    const NAME: &'static str = "color_transform";
    type Sizes = [usize; 4];
    type Output = Tensor;

    /// Accepts the factors that torchvision accepts: 0 or more, and half a turn at most for the
    /// hue.
    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_rgb(check, self.x)?;
        one_per_image(check, sizes[0], self.transforms.len())?;
        for transform in self.transforms {
            for (&step, &factor) in transform.steps.iter().zip(&transform.factors) {
                let (is_usable, expected) = if step == ColorStep::Hue as u32 {
                    (factor.abs() <= 0.5, "a hue factor within [-0.5, 0.5]")
                } else {
                    (
                        (0.0..f32::INFINITY).contains(&factor),
                        "a finite factor of 0 or more",
                    )
                };
                if !is_usable {
                    return Err(check.error(format!(
                        "{transform:?} has a factor of {factor}; expected {expected}"
                    )));
                }
            }
        }
        check.host(self.transforms);
        Ok(sizes)
    }
}
