//! Matrix products.

use parallax::device::kernels::Gemm;

use super::{Expected, Sum};

/// C [m, n] = op(A) op(B), with K = k.
pub fn gemm(options: Gemm, [m, n, k]: [usize; 3], a: &[f64], b: &[f64]) -> Expected {
    let a_at = |i: usize, l: usize| {
        if options.transpose_a {
            a[l * m + i]
        } else {
            a[i * k + l]
        }
    };
    let b_at = |l: usize, j: usize| {
        if options.transpose_b {
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

/// y [n, o] = x [n, i] w [o, i]^T + bias [o], with K = i + 1.
pub fn linear([n, i, o]: [usize; 3], x: &[f64], w: &[f64], bias: &[f64]) -> Expected {
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
