//! `y = x w^T + bias`. Saves x where dw is wanted, and w where dx is. Backward: `dx = dy w`, `dw = dy^T x`,
//! `dbias = sum over rows of dy`.

use super::{Tape, Var};
use crate::device::kernels::Gemm;
use crate::error::Result;

/// A linear layer: `x [N, I]`, `w [O, I]`, `bias [O]`, result `[N, O]`.
///
/// # Errors
/// `Error::Shape` where these do not fit.
pub fn linear(tape: &Tape, x: &Var, w: &Var, bias: &Var) -> Result<Var> {
    let y = tape
        .device()
        .linear(x.tensor(), w.tensor(), bias.tensor())?;
    let saved_w = x.is_tracked().then(|| w.tensor().clone());
    let saved_x = w.is_tracked().then(|| x.tensor().clone());
    let needs_dbias = bias.is_tracked();
    let inputs = [("x", x), ("w", w), ("bias", bias)];
    tape.record("linear", y, &inputs, move |device, dy| {
        let transposed = Gemm {
            transpose_a: true,
            transpose_b: false,
        };
        let dx = saved_w.map(|w| device.gemm(Gemm::default(), dy, &w));
        let dw = saved_x.map(|x| device.gemm(transposed, dy, &x));
        let dbias = needs_dbias.then(|| device.sum_rows(dy));
        Ok(vec![dx.transpose()?, dw.transpose()?, dbias.transpose()?])
    })
}
