//! `y = sum of x`. Saves the shape of x. Backward: `dx_i = dy`.

use super::{Tape, Var};
use crate::error::Result;

/// The sum of all elements, `[1]`.
pub fn sum(tape: &Tape, x: &Var) -> Result<Var> {
    let y = tape.device().sum(x.tensor())?;
    let shape = x.shape().to_vec();
    tape.record("sum", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.broadcast(dy, &shape)?)])
    })
}
