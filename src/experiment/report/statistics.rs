//! What several runs of the same thing say together, and when two such things differ.

/// One quantity, measured once a seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// One a seed, in the order of the seeds.
    pub values: Vec<f64>,
    /// Test images behind a value that is a part of them; none where the value is no such part.
    pub images: Option<usize>,
    /// The numbers of the runs, as the report lists them.
    pub runs: Vec<usize>,
}

impl Measured {
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// The standard deviation over seeds; none of fewer than two.
    pub fn spread(&self) -> Option<f64> {
        let n = self.values.len();
        if n < 2 {
            return None;
        }
        let mean = self.mean();
        let squares = self.values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        Some((squares / (n - 1) as f64).sqrt())
    }

    /// The standard error of the mean: binomial over the test images, which every seed shares, and the spread over
    /// seeds.
    pub fn standard_error(&self) -> f64 {
        let p = self.mean();
        let binomial = self
            .images
            .map_or(0.0, |n| (p * (1.0 - p)).max(0.0) / n.max(1) as f64);
        let seeds = self
            .spread()
            .map_or(0.0, |s| s * s / self.values.len() as f64);
        (binomial + seeds).sqrt()
    }
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    Undecided,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Yes => "yes",
            Verdict::No => "no",
            Verdict::Undecided => "undecided",
        }
    }

    /// Whether a difference is above 0, by more than two standard errors.
    pub fn of_difference(difference: f64, standard_error: f64) -> Self {
        if difference > 2.0 * standard_error {
            Verdict::Yes
        } else if difference < -2.0 * standard_error {
            Verdict::No
        } else {
            Verdict::Undecided
        }
    }

    /// Of a list of comparisons that must all hold: no if one is contradicted.
    pub fn of_all(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let (mut any, mut all) = (false, true);
        for verdict in verdicts {
            if verdict == Verdict::No {
                return Verdict::No;
            }
            any = true;
            all &= verdict == Verdict::Yes;
        }
        match any && all {
            true => Verdict::Yes,
            false => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64], images: usize) -> Measured {
        Measured {
            values: values.to_vec(),
            images: Some(images),
            runs: vec![],
        }
    }

    #[test]
    fn one_seed_has_the_binomial_error_alone() {
        let one = measured(&[0.5], 10_000);
        assert_eq!(one.spread(), None);
        assert!((one.standard_error() - 0.005).abs() < 1e-12);
    }

    #[test]
    fn seeds_add_their_spread() {
        let three = measured(&[0.4, 0.5, 0.6], 10_000);
        assert!((three.mean() - 0.5).abs() < 1e-12);
        assert!((three.spread().unwrap() - 0.1).abs() < 1e-12);
        let expected = (0.005f64.powi(2) + 0.01 / 3.0).sqrt();
        assert!((three.standard_error() - expected).abs() < 1e-12);
    }

    #[test]
    fn two_standard_errors_decide() {
        assert_eq!(Verdict::of_difference(0.021, 0.01), Verdict::Yes);
        assert_eq!(Verdict::of_difference(0.019, 0.01), Verdict::Undecided);
        assert_eq!(Verdict::of_difference(-0.021, 0.01), Verdict::No);
    }

    #[test]
    fn a_claim_is_all_of_its_comparisons() {
        use Verdict::{No, Undecided, Yes};
        assert_eq!(Verdict::of_all([Yes, Yes]), Yes);
        assert_eq!(Verdict::of_all([Yes, Undecided]), Undecided);
        assert_eq!(Verdict::of_all([Undecided, No]), No);
        assert_eq!(Verdict::of_all([]), Undecided);
    }
}
