//! Sums, and the check for numbers that are not finite.
//!
//! | operation | result | backward |
//! | --- | --- | --- |
//! | [`Sum`] | the sum of all elements, `[1]` | `dx_i = dy` |
//! | [`SumRows`] | the sum of the rows of `x [N, C]`, `[C]` | |
//! | [`CheckFinite`] | sets a flag if an element is NaN or an infinity | |

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

pub(crate) use cpu::sum_f64;

use crate::autograd::Var;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::ops::elementwise::Broadcast;
use crate::tensor::{DType, Tensor};

/// The sum of all elements, `[1]`.
pub struct Sum<'a> {
    pub x: &'a Tensor,
}

impl Op for Sum<'_> {
    const NAME: &'static str = "sum";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", self.x)
    }

    fn flops(&self, _: ()) -> u64 {
        self.x.len() as u64
    }
}

/// The sum of the rows of `x [N, C]`, `[C]`: the gradient of the bias of a linear layer.
pub struct SumRows<'a> {
    pub x: &'a Tensor,
}

impl Op for SumRows<'_> {
    const NAME: &'static str = "sum_rows";
    type Sizes = [usize; 2];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        check.matrix("x", self.x)
    }

    fn flops(&self, _: [usize; 2]) -> u64 {
        self.x.len() as u64
    }
}

/// Sets `flag`, u32 `[1]`, to 1 if an element of `x`, f32 or f16, is not finite. Never clears it.
pub struct CheckFinite<'a> {
    pub x: &'a Tensor,
    pub flag: &'a Tensor,
}

impl Op for CheckFinite<'_> {
    const NAME: &'static str = "check_finite";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation("x", self.x)?;
        check.tensor("flag", self.flag, &[1], DType::U32)
    }
}

impl Var {
    /// The sum of all elements, `[1]`. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if the value is not f32.
    pub fn sum(&self) -> Result<Var> {
        let y = self.device().run(Sum { x: self.tensor() })?;
        let shape = self.shape().to_vec();
        Var::record(Sum::NAME, y, [("x", self)], move |device, dy| {
            let (value, shape) = (&dy, &shape);
            Ok([device.run(Broadcast { value, shape })?])
        })
    }
}
