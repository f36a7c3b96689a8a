//! The required accuracy of f32 arithmetic. The figures for built-in functions are those of WGSL
//! (section 15.7.4 'Floating Point Accuracy' of <https://www.w3.org/TR/WGSL/>). Unless noted
//! otherwise, they are relative to the result; an ulp is at most 2 U of it.

/// The unit roundoff of f32: the maximum relative error of a correctly rounded result.
pub const U: f64 = 1.0 / 16_777_216.0;

/// WGSL allows flushing subnormal results to 0, so every result may have this absolute error.
pub const FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// x / y: 2.5 ulp.
pub const DIVISION: f64 = 5.0 * U;

/// inverseSqrt(x): 2 ulp.
pub const INVERSE_SQRT: f64 = 4.0 * U;

/// sqrt(x), computed as 1 / inverseSqrt(x).
pub const SQRT: f64 = DIVISION + INVERSE_SQRT;

/// 1 / sqrt(x), as inverseSqrt(x) or as a division.
pub const ONE_OVER_SQRT: f64 = SQRT + DIVISION;

/// The distance between the f32 numbers around `x`.
pub fn ulp(x: f64) -> f64 {
    if !x.is_finite() {
        return 0.0;
    }
    let exponent = (x.abs().max(FLUSH)).log2().floor();
    (exponent - 23.0).exp2()
}

/// exp(x): 3 + 2 |x| ulp.
pub fn exp(x: f64) -> f64 {
    (3.0 + 2.0 * x.abs()) * 2.0 * U
}

/// log(x), absolute: 2^-21 for x in [0.5, 2], otherwise 3 ulp.
pub fn log(x: f64) -> f64 {
    if (0.5..=2.0).contains(&x) {
        8.0 * U
    } else {
        6.0 * U * x.ln().abs()
    }
}

/// The natural logarithm of `sum_j exp(s_j)` and its absolute error, if `s_j` has `errors[j]`.
///
/// Let d_j = s_j - max. The error of d_j in f32 is U |s_j| + U |max|, and that of exp(d_j) is given
/// above. A streaming pass multiplies the sum by exp(old max - new max) at each new maximum. Among
/// J numbers in random order, there are about ln J of them. Their exponents add up to d_j, and each
/// adds an error of 3 ulp and a multiplication. The relative error of a term is weighted by its
/// softmax. The sum adds an error of 4 sqrt(J) U; log and the final addition add theirs.
pub fn log_sum_exp(s: &[f64], errors: &[f64]) -> (f64, f64) {
    let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = s.iter().map(|v| (v - max).exp()).sum();
    let value = max + sum.ln();
    let rescales = 1.0 + (s.len() as f64).ln();
    let weighted: f64 = s
        .iter()
        .zip(errors)
        .map(|(v, error)| {
            let d = v - max;
            let relative = error + U * (v.abs() + max.abs()) + exp(d) + rescales * 7.0 * U;
            (d.exp() / sum) * relative
        })
        .sum();
    let bound =
        weighted + 4.0 * (s.len() as f64).sqrt() * U + log(sum) + U * (max.abs() + value.abs());
    (value, bound)
}
