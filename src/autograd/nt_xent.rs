//! NT-Xent (Chen et al. 2020, equation 1) over rows z of length 1, row i and row `(i + N) mod 2N` being two views of
//! one image: with `s_ij = z_i . z_j / temperature`, `y = mean over i of log sum_{j != i} exp(s_ij) - s_{i,pos(i)}`.
//! Saves z and each row's log-sum-exp, never the 2N x 2N similarities. Backward, with `p_ij = exp(s_ij - lse_i)`:
//! `dz_i = dy / (2N temperature) (sum_{j != i} (p_ij + p_ji) z_j - 2 z_pos(i))`.

use super::{Tape, Var};
use crate::error::Result;

/// The contrastive loss, `[1]`, of `z [2N, D]`: rows from [`super::l2_normalize`], first views above second views.
///
/// # Errors
/// `Error::Shape` where the number of rows is odd or the temperature is not above 0.
pub fn nt_xent(tape: &Tape, z: &Var, temperature: f32) -> Result<Var> {
    let forward = tape.device().nt_xent(z.tensor(), temperature)?;
    let y = forward.loss.clone();
    let saved_z = z.tensor().clone();
    tape.record("nt_xent", y, &[("z", z)], move |device, dy| {
        let dz = device.nt_xent_backward(dy, &saved_z, temperature, &forward)?;
        Ok(vec![Some(dz)])
    })
}
