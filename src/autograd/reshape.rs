//! `y = x` under another shape. Saves the shape of x. Backward: `dx = dy` under that shape.

use super::{Tape, Var};
use crate::error::Result;

/// The same elements under another shape; nothing is copied.
///
/// # Errors
/// `Error::Shape` where the number of elements differs.
pub fn reshape(tape: &Tape, x: &Var, shape: &[usize]) -> Result<Var> {
    let y = x.tensor().reshape(shape)?;
    let x_shape = x.shape().to_vec();
    tape.record("reshape", y, &[("x", x)], move |_, dy| {
        Ok(vec![Some(dy.reshape(&x_shape)?)])
    })
}
