//! `y = x`, rounded to another type. Saves the type of x. Backward: `dx = dy`, as x's type.

use super::{Tape, Var};
use crate::error::Result;
use crate::tensor::DType;

/// `x` as `dtype`, f32 or f16: where the activations of a network change their type. What has it already stays what it
/// is.
///
/// # Errors
/// `Error::Shape` where either is another type; `Error::Device` where the device has no f16.
pub fn cast(tape: &Tape, x: &Var, dtype: DType) -> Result<Var> {
    let from = x.tensor().dtype();
    if from == dtype {
        return Ok(x.clone());
    }
    let y = tape.device().cast(x.tensor(), dtype)?;
    tape.record("cast", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.cast(dy, from)?)])
    })
}
