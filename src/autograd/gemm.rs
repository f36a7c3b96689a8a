//! `C = op(A) op(B)`, where op transposes or not. Saves A and B, each where the other's gradient is wanted. Backward,
//! with P = op(A) and Q = op(B): `dP = dC Q^T`, `dQ = P^T dC`, and `dA = dP` or its transpose, written as one product:
//!
//! | A | B | dA | dB |
//! | --- | --- | --- | --- |
//! | as it is | as it is | dC B^T | A^T dC |
//! | as it is | transposed | dC B | dC^T A |
//! | transposed | as it is | B dC^T | A dC |
//! | transposed | transposed | B^T dC^T | dC^T A^T |

use super::{Tape, Var};
use crate::device::kernels::Gemm;
use crate::error::Result;

/// The matrix product: `a` is `[M, K]` (`[K, M]` where transposed), `b` `[K, N]` (`[N, K]`), the result `[M, N]`.
///
/// # Errors
/// `Error::Shape` where the inner sizes differ.
pub fn gemm(tape: &Tape, options: Gemm, a: &Var, b: &Var) -> Result<Var> {
    let y = tape.device().gemm(options, a.tensor(), b.tensor())?;
    let Gemm {
        transpose_a,
        transpose_b,
    } = options;
    let product = |transpose_a, transpose_b| Gemm {
        transpose_a,
        transpose_b,
    };
    let saved_a = b.is_tracked().then(|| a.tensor().clone());
    let saved_b = a.is_tracked().then(|| b.tensor().clone());
    tape.record("gemm", y, &[("a", a), ("b", b)], move |device, dy| {
        let da = saved_b.map(|b| {
            if transpose_a {
                device.gemm(product(transpose_b, true), &b, dy)
            } else {
                device.gemm(product(false, !transpose_b), dy, &b)
            }
        });
        let db = saved_a.map(|a| {
            if transpose_b {
                device.gemm(product(true, transpose_a), dy, &a)
            } else {
                device.gemm(product(!transpose_a, false), &a, dy)
            }
        });
        Ok(vec![da.transpose()?, db.transpose()?])
    })
}
