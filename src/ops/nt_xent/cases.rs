//! NT-Xent against float64, with the whole matrix of similarities.

use super::{NtXent, NtXentBackward};
use crate::error::Result;
use crate::philox::Philox;
use crate::testing::accuracy::{self, DIVISION, U};
use crate::testing::{Expected, Sum, Tester, narrow, normal, normal_leaf, signed, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    agreement_with_float64(tester)?;
    equal_views_and_collapsed_rows(tester)?;
    nan_in_a_row_makes_the_loss_nan(tester)?;
    gradients(tester)
}

/// The gradient of the loss. It is not 1, as if the loss were not the last operation.
pub(super) const DLOSS: f32 = -1.7;

/// Returns `s_ij = z_i . z_j / temperature` and its error bounds: a sum of D products and a
/// division, or a product with a reciprocal, which has one more rounding.
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

/// Returns the loss, and the log-sum-exp of each row without its diagonal.
///
/// The loss of a row has the error of its log-sum-exp, the error of the similarity of the positive
/// pair, and four roundings. The mean is a sum of 2N terms and a division.
pub(super) fn nt_xent(columns: usize, z: &[f64], temperature: f64) -> (Expected, Expected) {
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

/// Returns `dz_i = dloss / (2N temperature) (sum_{j != i} (p_ij + p_ji) z_j - 2 z_pos(i))` with
/// `p_ij = exp(s_ij - lse_i)`.
///
/// The bracket is a sum of 2N products. In it, each p has the error of the similarity, a rounding
/// of the exponent and the allowance of exp, and `p_ij + p_ji` has another rounding. The factor
/// before the bracket has two divisions and two products.
pub(super) fn nt_xent_backward(
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
            let ((p_ij, bound_ij), (p_ji, bound_ji)) = (p(i, j), p(j, i));
            let weight = p_ij + p_ji;
            let weight_bound = bound_ij + bound_ji + U * weight;
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

/// Random rows of length 1, rounded to f32.
pub(super) fn unit_rows(rng: &mut Philox, rows: usize, columns: usize) -> Vec<f32> {
    let mut x = wide(&normal(rng, rows * columns));
    for row in x.chunks_mut(columns) {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    narrow(&x)
}

fn check_agreement(
    tester: &Tester,
    what: &str,
    [rows, columns]: [usize; 2],
    z: &[f32],
    temperature: f32,
) -> Result<()> {
    let t = f64::from(temperature);
    let (loss, lse) = nt_xent(columns, &wide(z), t);
    let lse32 = narrow(&lse.value);
    let dz = nt_xent_backward(columns, f64::from(DLOSS), &wide(z), t, &wide(&lse32));
    let shape = [rows, columns];
    for on in tester.all() {
        let case = format!("of {what} {shape:?}, temperature {temperature}");
        let z = &on.put(z, &shape)?;
        let forward = on.run(NtXent { z, temperature })?;
        let found = &forward.log_sum_exp;
        on.agree(&format!("log-sum-exp {case}"), found, &[rows], &lse)?;
        on.agree(&format!("loss {case}"), &forward.loss, &[1], &loss)?;
        let back = on.run(NtXentBackward {
            dloss: &on.put(&[DLOSS], &[1])?,
            z,
            temperature,
            log_sum_exp: &on.put(&lse32, &[rows])?,
        });
        on.agree(&format!("dz {case}"), &back?, &shape, &dz)?;
    }
    Ok(())
}

fn agreement_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(64);
    for rows in [2, 4, 6, 64, 130, 514, 516] {
        for columns in [1, 7, 128] {
            let z = unit_rows(&mut rng, rows, columns);
            for temperature in [0.05, 0.5, 1.0] {
                check_agreement(tester, "random rows", [rows, columns], &z, temperature)?;
            }
        }
    }
    // More rows than two tiles have columns.
    let z = unit_rows(&mut rng, 1030, 3);
    check_agreement(tester, "random rows", [1030, 3], &z, 0.1)?;
    Ok(())
}

fn equal_views_and_collapsed_rows(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(65);
    for (rows, columns) in [(6, 7), (130, 128)] {
        let half = unit_rows(&mut rng, rows / 2, columns);
        let views = [half.clone(), half].concat();
        check_agreement(tester, "equal views", [rows, columns], &views, 0.1)?;
        let row = unit_rows(&mut rng, 1, columns);
        check_agreement(
            tester,
            "equal rows",
            [rows, columns],
            &row.repeat(rows),
            0.1,
        )?;
        // At this temperature, probabilities are subnormal.
        check_agreement(tester, "equal views", [rows, columns], &views, 0.01)?;
    }
    Ok(())
}

fn nan_in_a_row_makes_the_loss_nan(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(66);
    let temperature = 0.5;
    for (rows, row) in [(2, 0), (2, 1), (130, 64), (1030, 700)] {
        let mut z = unit_rows(&mut rng, rows, 7);
        z[row * 7 + 3] = f32::NAN;
        for on in tester.all() {
            let z = &on.put(&z, &[rows, 7])?;
            let loss = on.run(NtXent { z, temperature })?.loss;
            let case = format!("of {rows} rows, NaN in row {row}");
            on.agree(&case, &loss, &[1], &Expected::exact(vec![f64::NAN]))?;
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    // The gradient holds for rows of length 1, as the loss is used, and for rows of any length.
    tester.gradients(
        "nt_xent of l2_normalize",
        &[normal_leaf(1, &[10, 6])],
        |x| x[0].l2_normalize(1e-12)?.nt_xent(0.5),
    )?;
    let leaves = [signed(1, &[8, 5], 0.1, 0.6)];
    tester.gradients("nt_xent", &leaves, |x| x[0].nt_xent(0.7))?;
    let leaves = [signed(1, &[2, 5], 0.1, 0.6)];
    tester.gradients("nt_xent of one pair", &leaves, |x| {
        x[0].add(&x[0])?.nt_xent(0.7)
    })
}
