//! Rows scaled to length 1, as `torch.nn.functional.normalize`.
//!
//! Forward: `norm_i = max(|x_i|, eps)`, `y_i = x_i / norm_i`, for each row of `x [N, D]`.
//! Backward: `dx_i = (dy_i - y_i (y_i . dy_i)) / norm_i`, or `dy_i / norm_i` if `norm_i` is `eps`.
//! Saves `y` and the norms.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op, Output, product};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The forward pass.
pub struct L2Normalize<'a> {
    pub x: &'a Tensor,
    pub eps: f32,
}

/// The rows `y [N, D]` and their norms `[N]`.
pub struct Normalized {
    pub y: Tensor,
    pub norm: Tensor,
}

impl Output for Normalized {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.y, &self.norm]
    }
}

impl Op for L2Normalize<'_> {
    const NAME: &'static str = "l2_normalize";
    type Sizes = [usize; 2];
    type Output = Normalized;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        check.matrix("x", self.x)
    }

    fn flops(&self, [n, d]: [usize; 2]) -> u64 {
        product(&[3, n, d])
    }
}

/// The backward pass: `dx [N, D]`.
pub struct L2NormalizeBackward<'a> {
    pub dy: &'a Tensor,
    pub forward: &'a Normalized,
    pub eps: f32,
}

impl Op for L2NormalizeBackward<'_> {
    const NAME: &'static str = "l2_normalize_backward";
    type Sizes = [usize; 2];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        let Normalized { y, norm } = self.forward;
        let [n, d] = check.matrix("y", y)?;
        check.same(("y", y), ("dy", self.dy))?;
        check.tensor("norm", norm, &[n], DType::F32)?;
        Ok([n, d])
    }

    fn flops(&self, [n, d]: [usize; 2]) -> u64 {
        product(&[5, n, d])
    }
}

impl Var {
    /// Scales the rows of `x [N, D]` to length 1. A row shorter than `eps` is divided by `eps`.
    ///
    /// # Errors
    /// `Error::Shape` if `x` is not an f32 matrix.
    pub fn l2_normalize(&self, eps: f32) -> Result<Var> {
        let x = self.tensor();
        let forward = self.device().run(L2Normalize { x, eps })?;
        let y = forward.y.clone();
        Var::record(L2Normalize::NAME, y, [("x", self)], move |device, dy| {
            let (dy, forward) = (&dy, &forward);
            Ok([device.run(L2NormalizeBackward { dy, forward, eps })?])
        })
    }
}
