//! `y = x / max(|x|, eps)` for each row. Saves y and the lengths. Backward: `dx = (dy - y (y . dy)) / |x|`: what points
//! along y changes only the length, and is taken out; for a row shorter than eps, `dx = dy / eps`.

use super::{Tape, Var};
use crate::error::Result;

/// The rows of `x [N, D]` brought to length 1, as `torch.nn.functional.normalize` (whose eps is 1e-12).
///
/// # Errors
/// `Error::Shape` where x has not two dimensions.
pub fn l2_normalize(tape: &Tape, x: &Var, eps: f32) -> Result<Var> {
    let forward = tape.device().l2_normalize(x.tensor(), eps)?;
    let y = forward.y.clone();
    tape.record("l2_normalize", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(device.l2_normalize_backward(dy, &forward, eps)?)])
    })
}
