//! `y = (x - mean) / std` of each channel. Saves nothing. Backward: `dx = dy / std`.

use super::{Tape, Var};
use crate::error::Result;

/// Images `[N, 3, H, W]` by the mean and the standard deviation of each channel.
///
/// # Errors
/// `Error::Shape` where there are not three channels or a deviation is not above 0.
pub fn normalize(tape: &Tape, x: &Var, mean: [f32; 3], std: [f32; 3]) -> Result<Var> {
    let y = tape.device().normalize(x.tensor(), mean, std)?;
    tape.record("normalize", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.normalize(dy, [0.0; 3], std)?)])
    })
}
