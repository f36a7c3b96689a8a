//! Conversion between f32 and f16: to the nearest number, ties to even. Numbers beyond the largest
//! f16 become infinities. Backward: `dx = dy`, converted back to the type of `x`.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The elements of `x`, f32 or f16, as `dtype`, f32 or f16. A copy if `x` has that type.
pub struct Cast<'a> {
    pub x: &'a Tensor,
    pub dtype: DType,
}

impl Op for Cast<'_> {
    const NAME: &'static str = "cast";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation_type("dtype", self.dtype)?;
        check.activation("x", self.x)
    }
}

impl Var {
    /// The value as `dtype`, f32 or f16. Returns the same value if it has that type. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if either type is another one; `Error::Device` if the device has no f16.
    pub fn cast(&self, dtype: DType) -> Result<Var> {
        let from = self.tensor().dtype();
        if from == dtype {
            return Ok(self.clone());
        }
        let x = self.tensor();
        let y = self.device().run(Cast { x, dtype })?;
        Var::record(Cast::NAME, y, [("x", self)], move |device, dy| {
            let (x, dtype) = (&dy, from);
            Ok([device.run(Cast { x, dtype })?])
        })
    }
}
