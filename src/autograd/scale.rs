//! `y = factor x`. Saves nothing. Backward: `dx = factor dy`.

use super::{Tape, Var};
use crate::error::Result;

/// `x` times a constant.
pub fn scale(tape: &Tape, factor: f32, x: &Var) -> Result<Var> {
    let y = tape.device().scale(factor, x.tensor())?;
    tape.record("scale", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.scale(factor, dy)?)])
    })
}
