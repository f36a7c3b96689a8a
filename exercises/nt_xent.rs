//! Exercise 2: NT-Xent, the loss of SimCLR (Chen, Kornblith, Norouzi and Hinton 2020, equation 1).
//!
//! A batch of N images gives 2N embeddings of length 1: rows `i` and `(i + N) mod 2N` are two views
//! of one image. With `s_ij = z_i . z_j / temperature`, the loss is the mean over all 2N rows of
//!
//! `log(sum over j != i of exp(s_ij)) - s_i,(i + N) mod 2N`
//!
//! so each row is to be more similar to its other view than to the rest. The sum is taken over all
//! rows but the row itself; the other view is part of it.
//!
//! At low temperatures `exp` overflows. Subtract the largest `s_ij` before, and add it after the
//! logarithm. The library has it in `src/ops/nt_xent` and `shaders/nt_xent.wgsl`.
#![allow(unused_variables)] // until the exercise is solved

/// The loss of embeddings of length 1.
pub fn nt_xent(z: &[Vec<f64>], temperature: f64) -> f64 {
    // Replace this line, which has the loss of embeddings that are all equal.
    ((z.len() - 1) as f64).ln()
}
