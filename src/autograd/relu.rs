//! `y = max(x, 0)`. Saves y. Backward: `dx = dy where y > 0, else 0`.

use super::{Tape, Var};
use crate::error::Result;

/// The rectifier, element by element.
pub fn relu(tape: &Tape, x: &Var) -> Result<Var> {
    let y = tape.device().relu(x.tensor())?;
    let saved_y = y.clone();
    tape.record("relu", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.relu_backward(dy, &saved_y)?)])
    })
}
