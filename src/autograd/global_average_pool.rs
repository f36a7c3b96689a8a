//! `y[n,c] = mean over i,j of x[n,c,i,j]`. Saves the shape and the type of x. Backward:
//! `dx[n,c,i,j] = dy[n,c] / (H W)`.

use super::{Tape, Var};
use crate::error::Result;

/// The mean of each plane: `[N, C, H, W]`, f32 or f16, to `[N, C]`, f32.
///
/// # Errors
/// `Error::Shape` where x has not four dimensions.
pub fn global_average_pool(tape: &Tape, x: &Var) -> Result<Var> {
    let x_shape = x.tensor().nchw("global_average_pool", "x")?;
    let x_dtype = x.tensor().dtype();
    let y = tape.device().global_average_pool(x.tensor())?;
    tape.record("global_average_pool", y, &[("x", x)], move |device, dy| {
        Ok(vec![Some(
            device.global_average_pool_backward(dy, x_shape, x_dtype)?,
        )])
    })
}
