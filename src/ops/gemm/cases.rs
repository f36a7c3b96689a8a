//! Products against float64.

use super::{Gemm, Linear, operand};
use crate::error::Result;
use crate::testing::tester::{On, SMALL_BINDING};
use crate::testing::{Expected, Sum, Tester, bits, normal, normal_leaf, rounded16, size, wide};

/// Whether A and B are transposed.
pub(super) const TRANSPOSITIONS: [[bool; 2]; 4] =
    [[false, false], [false, true], [true, false], [true, true]];

/// Thin and tiny matrices; ragged edges of tiles; whole vec4s; a long sum.
const SIZES: [[usize; 3]; 14] = [
    [1, 1, 1],
    [1, 1, 129],
    [1, 129, 1],
    [129, 1, 1],
    [3, 5, 7],
    [17, 1, 64],
    [2, 3, 70_001],
    [64, 64, 64],
    [65, 63, 129],
    [128, 128, 16],
    [257, 129, 65],
    [250, 124, 37],
    [68, 72, 4],
    [128, 64, 132],
];

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    products(tester, 20, &SIZES)?;
    linear_agrees(tester, 24)?;
    repeats_on_matrices(tester)?;
    gradients(tester)
}

/// `C [m, n]` is the product of A and B, each transposed or not. K is k.
pub(super) fn gemm_in_float64(
    [transpose_a, transpose_b]: [bool; 2],
    [m, n, k]: [usize; 3],
    a: &[f64],
    b: &[f64],
) -> Expected {
    let a_at = |i: usize, l: usize| {
        if transpose_a {
            a[l * m + i]
        } else {
            a[i * k + l]
        }
    };
    let b_at = |l: usize, j: usize| {
        if transpose_b {
            b[j * k + l]
        } else {
            b[l * n + j]
        }
    };
    let element = |i, j| Sum::of((0..k).map(|l| a_at(i, l) * b_at(l, j)));
    (0..m)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| element(i, j))
        .collect()
}

/// `y [n, o] = x [n, i] w [o, i]^T + bias [o]`. K is i + 1.
pub(super) fn linear_in_float64(
    [n, i, o]: [usize; 3],
    x: &[f64],
    w: &[f64],
    bias: &[f64],
) -> Expected {
    let mut y = Expected::default();
    for row in 0..n {
        for column in 0..o {
            let mut sum = Sum::of((0..i).map(|l| x[row * i + l] * w[column * i + l]));
            sum.add(bias[column]);
            y.push(sum.value, sum.bound());
        }
    }
    y
}

/// Products of the sizes M, N, K, transposed and not.
pub fn products(tester: &Tester, stream: u32, sizes: &[[usize; 3]]) -> Result<()> {
    let mut rng = tester.random(stream);
    for &[m, n, k] in sizes {
        let (a, b) = (normal(&mut rng, m * k), normal(&mut rng, k * n));
        for transposed @ [transpose_a, transpose_b] in TRANSPOSITIONS {
            let exact = gemm_in_float64(transposed, [m, n, k], &wide(&a), &wide(&b));
            let (a16, b16) = (wide(&rounded16(&a)), wide(&rounded16(&b)));
            let rounded = gemm_in_float64(transposed, [m, n, k], &a16, &b16);
            let a_shape = if transpose_a { [k, m] } else { [m, k] };
            let b_shape = if transpose_b { [n, k] } else { [k, n] };
            for on in tester.all_variants() {
                // One row must fit a binding.
                if on.is_sliced() && 4 * k.max(n) + 256 > SMALL_BINDING {
                    continue;
                }
                let (a, b) = (on.put(&a, &a_shape)?, on.put(&b, &b_shape)?);
                let (a, b) = (operand(&a, transpose_a), operand(&b, transpose_b));
                let c = on.run(Gemm { a, b })?;
                let case = format!("{m} x {n} x {k}, transposed {transposed:?}");
                if on.rounds_factors() {
                    on.agree(&case, &c, &[m, n], &rounded)?;
                    on.agree(&case, &c, &[m, n], &exact.clone().of_rounded_factors())?;
                } else {
                    on.agree(&case, &c, &[m, n], &exact)?;
                }
            }
        }
    }
    Ok(())
}

/// Products with a bias, of the sizes N, I, O.
pub(super) fn linear_agrees(tester: &Tester, stream: u32) -> Result<()> {
    let mut rng = tester.random(stream);
    let mut sizes = vec![
        [1, 1, 1],
        [1, 128, 10],
        [7, 17, 5],
        [64, 64, 64],
        [65, 129, 63],
        [257, 33, 130],
        [2, 1000, 3],
        // Inputs and outputs of whole vec4s.
        [67, 36, 72],
        // The same, with a sum that is cut in several places.
        [8, 300, 12],
    ];
    sizes.extend((0..4).map(|_| std::array::from_fn(|_| size(&mut rng, 1, 150))));
    for [n, i, o] in sizes {
        let (x, w) = (normal(&mut rng, n * i), normal(&mut rng, o * i));
        let bias = normal(&mut rng, o);
        let exact = linear_in_float64([n, i, o], &wide(&x), &wide(&w), &wide(&bias));
        let (x16, w16) = (wide(&rounded16(&x)), wide(&rounded16(&w)));
        let rounded = linear_in_float64([n, i, o], &x16, &w16, &wide(&bias));
        for on in tester.all_variants() {
            let (x, w) = (&on.put(&x, &[n, i])?, &on.put(&w, &[o, i])?);
            let bias = &on.put(&bias, &[o])?;
            let y = on.run(Linear { x, w, bias })?;
            let case = format!("{n} x {i} to {o}");
            let expected = if on.rounds_factors() {
                &rounded
            } else {
                &exact
            };
            on.agree(&case, &y, &[n, o], expected)?;
        }
    }
    Ok(())
}

/// Number of equal calls of a variant on matrices. A driver may let the subgroups of a workgroup
/// race, which changes few results.
const REPEATS: usize = 100;

/// Equal products on matrices have equal bits.
fn repeats_on_matrices(tester: &Tester) -> Result<()> {
    let [m, n, k] = [130, 70, 203];
    let mut rng = tester.random(25);
    let (a, b) = (normal(&mut rng, m * k), normal(&mut rng, k * n));
    for on in tester.all_variants().filter(On::is_on_matrices) {
        let (a, b) = (&on.put(&a, &[k, m])?, &on.put(&b, &[k, n])?);
        let product = || on.run(Gemm::new(operand(a, true), b))?.to_vec::<f32>();
        let first = bits(&product()?);
        for number in 1..REPEATS {
            let case = format!("{m} x {n} x {k}, call {number}");
            on.equal(&case, &bits(&product()?), &first);
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    let (m, n, k) = (3, 5, 4);
    for transposed @ [transpose_a, transpose_b] in TRANSPOSITIONS {
        let a = if transpose_a { [k, m] } else { [m, k] };
        let b = if transpose_b { [n, k] } else { [k, n] };
        let leaves = [normal_leaf(1, &a), normal_leaf(2, &b)];
        let case = format!("gemm, transposed {transposed:?},");
        tester.gradients(&case, &leaves, |x| {
            x[0].gemm(transpose_a, &x[1], transpose_b)
        })?;
    }
    let leaves = [normal_leaf(1, &[3, 4]), normal_leaf(2, &[4, 5])];
    tester.gradients("matmul", &leaves, |x| x[0].matmul(&x[1]))?;
    let leaves = [
        normal_leaf(1, &[4, 6]),
        normal_leaf(2, &[3, 6]),
        normal_leaf(3, &[3]),
    ];
    tester.gradients("linear", &leaves, |x| x[0].linear(&x[1], &x[2]))
}
