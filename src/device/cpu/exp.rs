//! The exponential function, without branches and calls, so that the compiler vectorises its loops.

/// 1.5 * 2^23. Adding it rounds a float of magnitude below 2^22 to an integer in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts. The first has so few bits that its product with any exponent is exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// ln(2^-100). Below it, the result is 0: such terms do not change a sum, and their products would
/// soon be subnormal numbers, which many processors compute with tens of times more slowly.
const SMALLEST: f32 = -69.314_72;

/// e^x with an error of at most 2 ulp; 0 if e^x < 2^-100; NaN if x is NaN.
///
/// `e^x = 2^n e^r` with an integer n and `|r| <= ln 2 / 2`; e^r is the sum of the first eight terms
/// of its Taylor series (Cody and Waite, Software Manual for the Elementary Functions, 1980).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these bounds, the result is infinite or 0. All comparisons are false for NaN.
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < SMALLEST {
        SMALLEST
    } else {
        bounded
    };
    let rounded = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = bounded - n * LN2[0] - n * LN2[1];
    let terms = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let series = terms.iter().fold(0.0, |sum, term| sum * r + term);
    // 2^n as two factors, since 2^128 is not a finite float.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let half = n >> 1;
    let result = series * power(half) * power(n.wrapping_sub(half));
    if x < SMALLEST { 0.0 } else { result }
}

#[cfg(test)]
mod tests {
    use super::{SMALLEST, exp};

    #[test]
    fn agrees_with_the_float64_function() {
        let mut x = -105.0f32;
        while x < 90.0 {
            let (found, expected) = (exp(x), f64::from(x).exp());
            if expected > f64::from(f32::MAX) {
                assert_eq!(found, f32::INFINITY, "{x}");
            } else if x < SMALLEST {
                assert_eq!(found, 0.0, "{x}");
            } else {
                let error = (f64::from(found) - expected).abs() / expected;
                let error = error / f64::from(f32::EPSILON);
                assert!(error <= 1.0, "exp({x}) = {found}, {error} of epsilon away");
            }
            x += 0.000_937;
        }
    }

    #[test]
    fn special_values() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(f32::MIN), 0.0);
        assert!(exp(SMALLEST) > 0.0);
        assert_eq!(exp(SMALLEST.next_down()), 0.0);
    }
}
