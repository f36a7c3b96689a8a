//! Parsers of the values of options, for the command line and for configuration files. Their
//! messages name what is expected.

use std::ops::RangeInclusive;

use crate::optim::Schedule;
use crate::tensor::DType;

/// The value, or what is expected.
type Parsed<T> = std::result::Result<T, String>;

/// Returns a parser of whole numbers in `range`, whose message gives the range.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Parsed<T> + Clone + Send + Sync {
    move |word| {
        let number = word.parse::<u64>().ok().filter(|n| range.contains(n));
        let number = number.and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| match *range.end() {
            u64::MAX => format!("expected a whole number, {} or more", range.start()),
            end => format!("expected a whole number from {} to {end}", range.start()),
        })
    }
}

/// Parses a whole number, 1 or more.
pub fn count<T: TryFrom<u64>>(word: &str) -> Parsed<T> {
    whole(1..=u64::MAX)(word)
}

/// Parses a number above 0.
pub fn positive(word: &str) -> Parsed<f64> {
    number(word, "above 0", |x| x > 0.0)
}

/// Parses a number that is not negative.
pub fn not_negative(word: &str) -> Parsed<f64> {
    number(word, "0 or more", |x| x >= 0.0)
}

/// Parses a number for which `holds` is true, which messages call `expected`.
pub fn number(word: &str, expected: &str, holds: impl Fn(f64) -> bool) -> Parsed<f64> {
    let value: f64 = word
        .parse()
        .map_err(|_| format!("expected a number {expected}"))?;
    if value.is_finite() && (value as f32).is_finite() && holds(value) {
        Ok(value)
    } else {
        Err(format!("expected a finite number {expected}"))
    }
}

/// Parses a fraction: above 0, at most 1.
pub fn fraction(word: &str) -> Parsed<f64> {
    number(word, "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

/// Parses the temperature of a vote of neighbours. The exponential of a similarity over a smaller
/// one overflows.
pub fn knn_temperature(word: &str) -> Parsed<f64> {
    number(word, "from 0.01", |x| x >= 0.01)
}

/// Parses a seed: a whole number that a TOML file can hold.
pub fn seed(word: &str) -> Parsed<u64> {
    word.parse::<u64>()
        .ok()
        .filter(|&seed| i64::try_from(seed).is_ok())
        .ok_or_else(|| "expected a whole number from 0 to 9223372036854775807".to_string())
}

/// Checks the words of a schedule. The steps of the training are not known yet.
pub fn schedule(words: &str) -> Parsed<String> {
    let schedule = Schedule::parse(words, 0, u64::MAX);
    schedule
        .map(|_| words.to_string())
        .map_err(|e| e.to_string())
}

/// Parses the type of activations.
pub fn precision(word: &str) -> Parsed<DType> {
    [DType::F32, DType::F16]
        .into_iter()
        .find(|dtype| dtype.to_string() == word)
        .ok_or_else(|| "expected f32 or f16".to_string())
}
