//! `y = the maximum of each window of x`. Saves where each maximum stood (the first one of equals). Backward: each dy
//! is added there.

use super::{Tape, Var};
use crate::device::kernels::MaxPool;
use crate::device::shapes::Pool2d;
use crate::error::Result;

/// Max-pooling of `x [N, C, H, W]`; padding counts as minus infinity.
///
/// # Errors
/// `Error::Shape` where the window does not fit.
pub fn max_pool2d(tape: &Tape, x: &Var, pool: Pool2d) -> Result<Var> {
    let x_shape = x.tensor().nchw("max_pool2d", "x")?;
    let MaxPool { y, argmax } = tape.device().max_pool2d(x.tensor(), pool)?;
    tape.record("max_pool2d", y, &[("x", x)], move |device, dy| {
        let dx = device.max_pool2d_backward(dy, &argmax, x_shape, pool)?;
        Ok(vec![Some(dx)])
    })
}
