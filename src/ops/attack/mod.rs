//! One step of a gradient attack (FGSM, Goodfellow et al. 2015; PGD, Madry et al. 2018).

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::Tensor;

/// `y = clamp(clamp(x + alpha sign(dx), clean - eps, clean + eps), low, high)` with `sign(0) = 0`.
///
/// If `clean` is in `[low, high]`, the result is within `eps` of `clean`, up to the rounding of
/// `clean +- eps`.
pub struct AttackStep<'a> {
    pub x: &'a Tensor,
    pub dx: &'a Tensor,
    pub clean: &'a Tensor,
    /// The size of the step along the sign of the gradient.
    pub alpha: f32,
    /// The largest distance from the clean image.
    pub eps: f32,
    /// The lowest and highest value of a pixel.
    pub low: f32,
    pub high: f32,
}

impl Op for AttackStep<'_> {
    const NAME: &'static str = "attack_step";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        let AttackStep {
            alpha,
            eps,
            low,
            high,
            ..
        } = *self;
        if !(alpha.is_finite() && eps >= 0.0 && low <= high) {
            return Err(check.error(format!(
                "alpha is {alpha}, eps is {eps}, low is {low}, high is {high}; expected a finite alpha, \
                 eps of 0 or more, and low at most high"
            )));
        }
        check.f32("x", self.x)?;
        check.same(("x", self.x), ("dx", self.dx))?;
        check.same(("x", self.x), ("clean", self.clean))
    }

    fn flops(&self, _: ()) -> u64 {
        8 * self.x.len() as u64
    }
}
