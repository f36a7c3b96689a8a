//! The exponential function, written without jumps or calls so that the compiler turns loops of it into vector code.

/// Adding it to a float of less than 2^22 rounds the float to a whole number, which the sum's lowest bits then hold.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts: the first has so few digits that its products with exponents of floats are exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Of less than this, 2^-100, the result is 0. What is summed up with such terms does not see them; products of them would
/// soon be subnormal numbers, with which processors take tens of times as long.
const SMALLEST: f32 = -69.314_72;

/// e^x to two units in the last place, but 0 where that is less than 2^-100; NaN where x is.
///
/// `e^x = 2^n e^r` with whole n and `|r| <= ln 2 / 2`, where e^r is the first eight terms of its Taylor series (Cody
/// and Waite, Software Manual for the Elementary Functions, 1980).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Where the result is infinite or 0 anyway. Comparisons that NaN fails, as is the last one.
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
    // 2^n as two factors, since 2^128 is no float.
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
    fn as_the_float64_function() {
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
    fn of_what_is_no_number() {
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
