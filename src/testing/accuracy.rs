//! How exact f32 arithmetic has to be. The figures for built-ins are WGSL's ('Floating Point Accuracy', section 15.7.4
//! of https://www.w3.org/TR/WGSL/); all are relative to the result unless said, and an ulp is at most 2 U of it.

/// The unit roundoff of f32: a correctly rounded result is off by this much of itself at most.
pub const U: f64 = 1.0 / 16_777_216.0;

/// Results below the smallest normal number may be flushed to zero (WGSL), so nothing is held to less than this.
pub const FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// x / y: 2.5 ulp.
pub const DIVISION: f64 = 5.0 * U;

/// inverseSqrt(x): 2 ulp.
pub const INVERSE_SQRT: f64 = 4.0 * U;

/// sqrt(x): inherited from 1 / inverseSqrt(x).
pub const SQRT: f64 = DIVISION + INVERSE_SQRT;

/// 1 / sqrt(x), whether written with inverseSqrt or with sqrt and a division.
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

/// log(x), absolute: 2^-21 for x in [0.5, 2], 3 ulp elsewhere.
pub fn log(x: f64) -> f64 {
    if (0.5..=2.0).contains(&x) {
        8.0 * U
    } else {
        6.0 * U * x.ln().abs()
    }
}

/// The natural logarithm of `sum_j exp(s_j)`, and its absolute error bound where each `s_j` is off by `errors[j]`.
///
/// With d_j = s_j - max: computing d_j in f32 is off by U |s_j| + U |max|, exp(d_j) by the allowance above. A streaming
/// pass multiplies the sum by exp(old max - new max) at each new maximum; among J numbers in random order these are
/// about ln J, their exponents add up to d_j, and each costs another 3 ulp and a multiplication. The relative errors
/// weigh as much as the softmax of their term; adding up costs 4 sqrt(J) U; log and the final addition come on top.
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
