//! NT-Xent (Chen et al. 2020, equation 1), with the whole similarity matrix.

use super::accuracy::{self, DIVISION, U};
use super::{Expected, Sum};

/// s_ij = z_i . z_j / temperature, and its error bound: a sum of D products and a division, or a product with a
/// reciprocal, which is a rounding more.
fn similarities(columns: usize, z: &[f64], temperature: f64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let (mut s, mut bounds) = (Vec::new(), Vec::new());
    for a in z.chunks(columns) {
        let (mut row, mut row_bounds) = (Vec::new(), Vec::new());
        for b in z.chunks(columns) {
            let dot = Sum::of(a.iter().zip(b).map(|(a, b)| a * b));
            let value = dot.value / temperature;
            row.push(value);
            row_bounds.push(dot.bound() / temperature + (DIVISION + U) * value.abs());
        }
        s.push(row);
        bounds.push(row_bounds);
    }
    (s, bounds)
}

/// (loss, log-sum-exp of each row without its diagonal). A row's loss is off by the error of its log-sum-exp, of the
/// positive's similarity and four roundings; the mean is a sum of 2N terms and a division.
pub fn nt_xent(columns: usize, z: &[f64], temperature: f64) -> (Expected, Expected) {
    let (s, errors) = similarities(columns, z, temperature);
    let rows = s.len();
    let (mut lse, mut losses) = (Expected::default(), Vec::new());
    let mut inherited = 0.0;
    for i in 0..rows {
        let others = |matrix: &[Vec<f64>]| -> Vec<f64> {
            (0..rows)
                .filter(|&j| j != i)
                .map(|j| matrix[i][j])
                .collect()
        };
        let (value, bound) = accuracy::log_sum_exp(&others(&s), &others(&errors));
        let positive = (i + rows / 2) % rows;
        losses.push(value - s[i][positive]);
        inherited += bound + errors[i][positive] + 4.0 * U * (value.abs() + s[i][positive].abs());
        lse.push(value, bound);
    }
    let sum = Sum::of(losses);
    let mean = sum.value / rows as f64;
    let mut loss = Expected::default();
    loss.push(
        mean,
        (sum.bound() + inherited) / rows as f64 + DIVISION * mean.abs(),
    );
    (loss, lse)
}

/// dz_i = dloss / (2N temperature) (sum_{j != i} (p_ij + p_ji) z_j - 2 z_pos(i)), p_ij = exp(s_ij - lse_i).
///
/// The bracket is a sum of 2N products. In it each p carries the similarity's error, a rounding of the exponent and the
/// allowance of exp, and p_ij + p_ji another rounding. The factor before it has two divisions and two products.
pub fn nt_xent_backward(
    columns: usize,
    dloss: f64,
    z: &[f64],
    temperature: f64,
    lse: &[f64],
) -> Expected {
    let (s, errors) = similarities(columns, z, temperature);
    let rows = s.len();
    let factor = dloss / (rows as f64 * temperature);
    let p = |i: usize, j: usize| -> (f64, f64) {
        let exponent = s[i][j] - lse[i];
        let relative =
            errors[i][j] + U * (s[i][j].abs() + exponent.abs()) + accuracy::exp(exponent);
        (exponent.exp(), exponent.exp() * relative)
    };
    let mut dz = Expected::default();
    for i in 0..rows {
        let positive = (i + rows / 2) % rows;
        let mut sums = vec![Sum::default(); columns];
        let mut inherited = vec![0.0; columns];
        for j in (0..rows).filter(|&j| j != i) {
            let ((there, there_bound), (back, back_bound)) = (p(i, j), p(j, i));
            let weight = there + back;
            let weight_bound = there_bound + back_bound + U * weight;
            for (d, z) in z[j * columns..][..columns].iter().enumerate() {
                sums[d].add(weight * z);
                inherited[d] += weight_bound * z.abs();
            }
        }
        for (d, z) in z[positive * columns..][..columns].iter().enumerate() {
            sums[d].add(-2.0 * z);
            let value = factor * sums[d].value;
            let bound = factor.abs() * (sums[d].bound() + inherited[d])
                + (2.0 * DIVISION + 2.0 * U) * value.abs();
            dz.push(value, bound);
        }
    }
    dz
}
