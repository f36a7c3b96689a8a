//! A convolution, batch norm with constant statistics, and what follows: `y = activation(conv2d(x, w) scale + shift)`,
//! for evaluation, where weights and statistics are constants. Saves y where it was rectified and a gradient is asked
//! for. Backward:
//!
//! 1. where y was rectified, `dy` counts only where `y > 0`; it is the shortcut's gradient too
//! 2. the convolution's result has the gradient `dy gamma / sqrt(variance + eps)`
//! 3. dx as in a convolution

use super::{Tape, Var};
use crate::device::kernels::{Activation, ChannelNorm};
use crate::device::shapes::Conv2d;
use crate::error::Result;
use crate::tensor::Tensor;

/// `x [N, C, H, W]`, `w [O, C, KH, KW]`, result and shortcut `[N, O, OH, OW]`, `norm` of O channels.
///
/// # Errors
/// `Error::Shape` where these do not fit.
pub fn conv2d_batch_norm(
    tape: &Tape,
    x: &Var,
    (w, conv): (&Tensor, Conv2d),
    norm: &ChannelNorm,
    activation: Activation<&Var>,
) -> Result<Var> {
    let tensors = activation.map(Var::tensor);
    let y = tape
        .device()
        .conv2d_batch_norm(x.tensor(), w, conv, norm, tensors)?;
    let x_shape = x.tensor().nchw("conv2d_batch_norm", "x")?;
    let mut inputs = vec![("x", x)];
    inputs.extend(activation.shortcut().map(|shortcut| ("shortcut", shortcut)));
    let needs_dx = x.is_tracked();
    let needs_dshortcut = activation.shortcut().map(Var::is_tracked);
    let saved_y = match activation {
        Activation::Identity => None,
        Activation::Relu | Activation::AddRelu(_) => Some(y.clone()),
    };
    let (w, norm) = (w.clone(), norm.clone());
    tape.record("conv2d_batch_norm", y, &inputs, move |device, dy| {
        let dx = |dy: &Tensor, y: Option<&Tensor>| -> Result<Option<Tensor>> {
            if !needs_dx {
                return Ok(None);
            }
            let dconv = device.batch_norm_evaluation_dx(dy, &norm, y)?;
            device.conv2d_dx(&dconv, &w, x_shape, conv).map(Some)
        };
        match (needs_dshortcut, &saved_y) {
            (Some(needed), Some(y)) => {
                let dsum = device.relu_backward(dy, y)?;
                Ok(vec![dx(&dsum, None)?, needed.then_some(dsum)])
            }
            (_, y) => Ok(vec![dx(dy, y.as_ref())?]),
        }
    })
}
