//! `y[n,o,i,j] = sum over c,u,v of x[n, c, i stride + u - padding, j stride + v - padding] w[o,c,u,v]`. Saves x where
//! dw is wanted, and w where dx is. Backward: dx scatters `dy w` to where each x was read (a convolution of dy with w
//! turned round), dw sums `dy x` over images and positions.

use super::{Tape, Var};
use crate::device::shapes::Conv2d;
use crate::error::Result;

/// A convolution without bias: `x [N, C, H, W]`, `w [O, C, KH, KW]`, result `[N, O, OH, OW]`.
///
/// # Errors
/// `Error::Shape` where these do not fit.
pub fn conv2d(tape: &Tape, x: &Var, w: &Var, conv: Conv2d) -> Result<Var> {
    let y = tape.device().conv2d(x.tensor(), w.tensor(), conv)?;
    let x_shape = x.tensor().nchw("conv2d", "x")?;
    let w_shape = w.tensor().nchw("conv2d", "w")?;
    let saved_w = x.is_tracked().then(|| w.tensor().clone());
    let saved_x = w.is_tracked().then(|| x.saved());
    tape.record("conv2d", y, &[("x", x), ("w", w)], move |device, dy| {
        // In this order, so that an x that was computed again is gone before there is a dx.
        let dw = saved_x.map(|x| device.conv2d_dw(dy, &x.into_tensor(device)?, w_shape, conv));
        let dw = dw.transpose()?;
        let dx = saved_w.map(|w| device.conv2d_dx(dy, &w, x_shape, conv));
        Ok(vec![dx.transpose()?, dw])
    })
}
