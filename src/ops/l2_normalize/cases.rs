//! Row normalisation against float64.

use super::{L2Normalize, L2NormalizeBackward, Normalized};
use crate::error::Result;
use crate::testing::accuracy::{DIVISION, SQRT, U};
use crate::testing::{Expected, Sum, Tester, narrow, normal, normal_leaf, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    agreement_with_float64(tester)?;
    gradients(tester)
}

/// Returns `y` and the norms.
///
/// A norm is the root of a sum of D squares: half of the relative error of that sum, and the error
/// of the root. `y` is divided by it.
pub(super) fn l2_normalize(columns: usize, x: &[f64], eps: f64) -> (Expected, Expected) {
    let (mut y, mut norms) = (Expected::default(), Expected::default());
    let relative = 2.0 * (columns as f64).sqrt() * U + SQRT;
    for row in x.chunks(columns) {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(eps);
        norms.push(norm, relative * norm);
        for x in row {
            y.push(x / norm, (relative + DIVISION) * (x / norm).abs());
        }
    }
    (y, norms)
}

/// Returns `dx = (dy - y (y . dy)) / norm`, or `dy / norm` if the row was shorter than `eps`.
///
/// The bracket is a sum of two terms. The second has the error of a dot product of D terms and of a
/// product. A division follows.
pub(super) fn l2_normalize_backward(
    columns: usize,
    dy: &[f64],
    (y, norm): (&[f64], &[f64]),
    eps: f64,
) -> Expected {
    let mut dx = Expected::default();
    for ((dy, y), &norm) in dy.chunks(columns).zip(y.chunks(columns)).zip(norm) {
        let along = Sum::of(y.iter().zip(dy).map(|(y, dy)| y * dy));
        for (y, dy) in y.iter().zip(dy) {
            if norm <= eps {
                dx.push(dy / norm, DIVISION * (dy / norm).abs());
                continue;
            }
            let bracket = Sum::of([*dy, -y * along.value]);
            let value = bracket.value / norm;
            let inherited = y.abs() * (along.bound() + U * along.value.abs());
            let bound = (bracket.bound() + inherited) / norm + DIVISION * value.abs();
            dx.push(value, bound);
        }
    }
    dx
}

fn agreement_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(60);
    let shapes = [
        [1, 1],
        [3, 7],
        [5, 17],
        [65, 128],
        [257, 17],
        [2, 1000],
        [130, 129],
        [1, 64],
    ];
    for [rows, columns] in shapes {
        // With the second eps, many rows are short.
        for eps in [1e-12_f32, 0.9 * (columns as f32).sqrt()] {
            let mut x = normal(&mut rng, rows * columns);
            // Row 0 is zero, row 1 is shorter than the first eps, and the squares of row 2 are near
            // the largest f32.
            for (row, factor) in [(0, 0.0), (1, 1e-17), (2, 1e16)] {
                if rows > 2 {
                    let row = &mut x[row * columns..][..columns];
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            let dy = normal(&mut rng, x.len());
            let eps64 = f64::from(eps);
            let (y, norm) = l2_normalize(columns, &wide(&x), eps64);
            let (y32, norm32) = (narrow(&y.value), narrow(&norm.value));
            let of_y = (&wide(&y32)[..], &wide(&norm32)[..]);
            let dx = l2_normalize_backward(columns, &wide(&dy), of_y, eps64);
            let shape = [rows, columns];
            for on in tester.all() {
                let case = format!("of {shape:?}, eps {eps}");
                let x = &on.put(&x, &shape)?;
                let forward = on.run(L2Normalize { x, eps })?;
                on.agree(&format!("norm {case}"), &forward.norm, &[rows], &norm)?;
                on.agree(&format!("y {case}"), &forward.y, &shape, &y)?;
                let forward = &Normalized {
                    y: on.put(&y32, &shape)?,
                    norm: on.put(&norm32, &[rows])?,
                };
                let dy = &on.put(&dy, &shape)?;
                let back = on.run(L2NormalizeBackward { dy, forward, eps });
                on.agree(&format!("dx {case}"), &back?, &shape, &dx)?;
            }
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    let leaves = [normal_leaf(1, &[4, 6])];
    // With the second eps, every row is short and is divided by eps.
    for eps in [1e-12, 100.0] {
        tester.gradients(&format!("l2_normalize, eps {eps}"), &leaves, |x| {
            x[0].l2_normalize(eps)
        })?;
    }
    Ok(())
}
