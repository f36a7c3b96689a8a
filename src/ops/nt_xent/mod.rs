//! NT-Xent (Chen et al. 2020, equation 1), the contrastive loss of SimCLR.
//!
//! The rows of `z [2N, D]` have length 1. Row `i` and row `pos(i) = (i + N) mod 2N` are two views
//! of one image. With `s_ij = z_i . z_j / temperature`:
//!
//! Forward: `loss = mean over i of log sum_{j != i} exp(s_ij) - s_i,pos(i)`.
//! Backward, with `p_ij = exp(s_ij - log_sum_exp_i)`:
//! `dz_i = dloss / (2N temperature) (sum_{j != i} (p_ij + p_ji) z_j - 2 z_pos(i))`.
//! Saves z and the log-sum-exp of each row. The 2N x 2N similarities are recomputed.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op, product};
use crate::error::Result;
use crate::ops::cross_entropy::RowLoss;
use crate::tensor::{DType, Tensor};

/// The forward pass, over `z [2N, D]`.
pub struct NtXent<'a> {
    pub z: &'a Tensor,
    pub temperature: f32,
}

/// Returns the rows and columns of `z`. Fails unless the number of rows is even and at least two.
fn check_views(check: &mut Check<'_>, z: &Tensor, temperature: f32) -> Result<[usize; 2]> {
    let [rows, columns] = check.matrix("z", z)?;
    if rows < 2 || rows % 2 != 0 || columns == 0 {
        return Err(check.error(format!(
            "z has shape {:?}; expected 2N rows (two views of each image) of at least one number",
            z.shape()
        )));
    }
    if temperature.is_nan() || temperature <= 0.0 {
        return Err(check.error(format!(
            "the temperature is {temperature}; expected a number above 0"
        )));
    }
    Ok([rows, columns])
}

impl Op for NtXent<'_> {
    const NAME: &'static str = "nt_xent";
    type Sizes = [usize; 2];
    type Output = RowLoss;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        check_views(check, self.z, self.temperature)
    }

    /// Per pair: a dot product, the temperature, an exponential and its sum.
    fn flops(&self, [n, d]: [usize; 2]) -> u64 {
        product(&[n, n, 2 * d + 3])
    }
}

/// The backward pass: `dz [2N, D]`.
pub struct NtXentBackward<'a> {
    /// `[1]`
    pub dloss: &'a Tensor,
    pub z: &'a Tensor,
    pub temperature: f32,
    /// `[2N]`, from the forward pass.
    pub log_sum_exp: &'a Tensor,
}

impl Op for NtXentBackward<'_> {
    const NAME: &'static str = "nt_xent_backward";
    type Sizes = [usize; 2];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        let [n, d] = check_views(check, self.z, self.temperature)?;
        check.tensor("dloss", self.dloss, &[1], DType::F32)?;
        check.tensor("log_sum_exp", self.log_sum_exp, &[n], DType::F32)?;
        Ok([n, d])
    }

    /// Per pair: the similarity, two exponentials, and the accumulation of a multiple of z.
    fn flops(&self, [n, d]: [usize; 2]) -> u64 {
        product(&[n, n, 4 * d + 6])
    }
}

impl Var {
    /// The contrastive loss, `[1]`, of `z [2N, D]`. The rows have length 1, and the N first views
    /// come before the N second views.
    ///
    /// # Errors
    /// `Error::Shape` if the number of rows is odd or the temperature is not above 0.
    pub fn nt_xent(&self, temperature: f32) -> Result<Var> {
        let z = self.tensor().clone();
        let forward = NtXent { z: &z, temperature };
        let RowLoss { loss, log_sum_exp } = self.device().run(forward)?;
        Var::record(NtXent::NAME, loss, [("z", self)], move |device, dloss| {
            Ok([device.run(NtXentBackward {
                dloss: &dloss,
                z: &z,
                temperature,
                log_sum_exp: &log_sum_exp,
            })?])
        })
    }
}
