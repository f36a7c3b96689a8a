//! `y = x[start .. start + count]` along the first dimension. Saves the shape of x. Backward: `dx` is `dy` in those
//! rows and 0 in the others.

use super::{Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Rows `start .. start + count` of the first dimension.
///
/// # Errors
/// `Error::Shape` where x has fewer rows.
pub fn slice(tape: &Tape, x: &Var, start: usize, count: usize) -> Result<Var> {
    let y = tape.device().slice(x.tensor(), start, count)?;
    let x_shape = x.shape().to_vec();
    tape.record("slice", y, &[("x", x)], move |device, dy| {
        let below = x_shape[0] - start - count;
        let mut dx = dy.clone();
        if start > 0 {
            dx = device.concat(&zero_rows(device, start, &x_shape)?, &dx)?;
        }
        if below > 0 {
            dx = device.concat(&dx, &zero_rows(device, below, &x_shape)?)?;
        }
        Ok(vec![Some(dx)])
    })
}

/// `rows` rows of zeros, of the other dimensions of `shape`.
fn zero_rows(device: &Device, rows: usize, shape: &[usize]) -> Result<Tensor> {
    let mut shape = shape.to_vec();
    shape[0] = rows;
    device.zeros(&shape, DType::F32)
}
