//! Values measured over seeds, and contrasts of such values with their confidence intervals.

/// One quantity, measured once per seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// One per seed, in the order of the seeds.
    pub values: Vec<f64>,
    /// Number of test images if the values are fractions of them; `None` for other values.
    pub images: Option<usize>,
    /// Indices of the runs in the report's list.
    pub runs: Vec<usize>,
}

impl Measured {
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// Returns the standard deviation over seeds, or `None` for fewer than two seeds.
    pub fn spread(&self) -> Option<f64> {
        let n = self.values.len();
        if n < 2 {
            return None;
        }
        let mean = self.mean();
        let squares = self.values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        Some((squares / (n - 1) as f64).sqrt())
    }

    /// Returns the binomial standard error over the test images, which all seeds share. One correct
    /// and one wrong prediction are added, so that the error is not 0 at an accuracy of 0 or 1.
    fn image_error(&self) -> f64 {
        let Some(images) = self.images else {
            return 0.0;
        };
        let n = images.max(1) as f64;
        let p = (self.mean() * n + 1.0) / (n + 2.0);
        (p * (1.0 - p) / n).max(0.0).sqrt()
    }

    /// Returns the standard error of the mean: the binomial error over the test images, and the
    /// error over seeds if there are several.
    pub fn standard_error(&self) -> f64 {
        let over_seeds = |s: f64| s / (self.values.len() as f64).sqrt();
        self.image_error()
            .hypot(self.spread().map_or(0.0, over_seeds))
    }
}

/// A value with its weight in a contrast.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub weight: f64,
    pub value: Measured,
    /// The training that the value belongs to.
    pub training: String,
}

/// Which errors are treated as fully correlated, so that their sizes add up. All others are
/// treated as independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// None. For contrasts within a training, and for costs.
    Terms,
    /// The errors of the checkpoints of one training.
    Trainings,
    /// The errors of all values with a positive weight, and those of all values with a negative
    /// weight.
    Sides,
}

/// An estimate with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

/// A weighted sum of measured values, or a function of them. The weights of a function are its
/// gradient (delta method).
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    pub estimate: f64,
    pub terms: Vec<Term>,
    pub pooling: Pooling,
    /// The standard deviation over seeds that is used if there are too few seeds to estimate it.
    pub prior: f64,
}

/// Degrees of freedom from which the estimated standard deviation over seeds replaces the prior.
const ENOUGH_FREEDOM: f64 = 5.0;

impl Contrast {
    /// Returns the pooled variance over seeds and its degrees of freedom. Each training contributes
    /// the mean variance of its values, and its number of seeds minus 1.
    fn estimated_spread(&self) -> (f64, f64) {
        let (mut squares, mut freedom) = (0.0, 0.0);
        let mut trainings: Vec<&str> = self.terms.iter().map(|t| t.training.as_str()).collect();
        trainings.sort_unstable();
        trainings.dedup();
        for training in trainings {
            let cells = self.terms.iter().filter(|t| t.training == training);
            let spreads: Vec<(f64, f64)> = cells
                .filter_map(|t| Some((t.value.spread()?.powi(2), t.value.values.len() as f64)))
                .collect();
            if let Some(seeds) = spreads.iter().map(|(_, n)| *n).reduce(f64::min) {
                let mean = spreads.iter().map(|(s, _)| s).sum::<f64>() / spreads.len() as f64;
                squares += mean * (seeds - 1.0);
                freedom += seeds - 1.0;
            }
        }
        (squares / freedom.max(1.0), freedom)
    }

    /// Returns the sum over blocks of correlated terms of the squared sum of `|weight| * error`.
    fn variance(&self, error: impl Fn(&Term) -> f64) -> f64 {
        let mut blocks: Vec<(&str, bool, f64)> = Vec::new();
        for term in self.terms.iter().filter(|t| t.weight != 0.0) {
            let size = term.weight.abs() * error(term);
            let key = match self.pooling {
                Pooling::Terms => None,
                Pooling::Trainings => Some((term.training.as_str(), true)),
                Pooling::Sides => Some(("", term.weight > 0.0)),
            };
            let same = |b: &&mut (&str, bool, f64)| key == Some((b.0, b.1));
            match (blocks.iter_mut().find(same), key) {
                (Some(block), _) => block.2 += size,
                (None, Some((name, side))) => blocks.push((name, side, size)),
                (None, None) => blocks.push(("", true, size)),
            }
        }
        blocks.iter().map(|(.., size)| size * size).sum()
    }

    /// Returns the interval with an error probability of `level` on each side. With few degrees of
    /// freedom it is the wider of that with the prior spread and that with the estimated one.
    pub fn interval(&self, level: f64) -> Interval {
        let (variance, freedom) = self.estimated_spread();
        let estimated = || self.half_width(level, variance.sqrt(), freedom);
        let prior = || self.half_width(level, self.prior, f64::INFINITY);
        let half = if freedom >= ENOUGH_FREEDOM {
            estimated()
        } else if freedom > 0.0 {
            estimated().max(prior())
        } else {
            prior()
        };
        Interval {
            estimate: self.estimate,
            low: self.estimate - half,
            high: self.estimate + half,
        }
    }

    /// Half the width of the interval with this standard deviation over seeds.
    fn half_width(&self, level: f64, spread: f64, freedom: f64) -> f64 {
        let of_seeds = |t: &Term| spread / (t.value.values.len().max(1) as f64).sqrt();
        let variance = self.variance(|t| t.value.image_error().hypot(of_seeds(t)));
        let over_seeds = self.variance(of_seeds);
        // Welch and Satterthwaite: the binomial variance has infinite degrees of freedom.
        let freedom = if over_seeds > 0.0 {
            freedom * (variance / over_seeds).powi(2)
        } else {
            f64::INFINITY
        };
        student_quantile(1.0 - level, freedom) * variance.sqrt()
    }
}

/// Returns the weights of the least-squares slope over `x`, which must have at least two different
/// values.
pub fn slope_weights(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    x.iter().map(|x| (x - mean) / squares).collect()
}

/// Returns the quantile of the standard normal distribution, by Acklam's rational approximation
/// (relative error 1.2e-9).
///
/// `p` must be strictly between 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    /// Below this probability, and above 1 minus it, the approximation of the tails is used.
    const TAIL: f64 = 0.02425;
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / horner(&D, q)
    };
    if p < TAIL {
        tail(p)
    } else if p > 1.0 - TAIL {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        q * horner(&A, q * q) / horner(&B, q * q)
    }
}

/// Returns the quantile of Student's distribution for `p` above 1/2 and one degree of freedom or
/// more. From 5 degrees of freedom on it is the expansion in their reciprocal (Abramowitz and
/// Stegun 26.7.5), within 1 % for the levels at which claims are tested. Below it is integrated.
pub fn student_quantile(p: f64, freedom: f64) -> f64 {
    if freedom < 5.0 {
        return student_quantile_by_integration(p, freedom);
    }
    let z = normal_quantile(p);
    let square = z * z;
    let g = [
        (square + 1.0) / 4.0,
        ((5.0 * square + 16.0) * square + 3.0) / 96.0,
        (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0,
        ((((79.0 * square + 776.0) * square + 1482.0) * square - 1920.0) * square - 945.0)
            / 92_160.0,
    ];
    let series = g.iter().rev().fold(0.0, |sum, g| (sum + g) / freedom);
    z * (1.0 + series)
}

/// With t = sqrt(freedom) / tan(u), the tail beyond t is proportional to the integral of
/// sin(u)^(freedom - 1) from 0 to u.
fn student_quantile_by_integration(p: f64, freedom: f64) -> f64 {
    const STEPS: usize = 4_000;
    let width = std::f64::consts::FRAC_PI_2 / STEPS as f64;
    let middle = |i: usize| (i as f64 + 0.5) * width;
    let density: Vec<f64> = (0..STEPS)
        .map(|i| middle(i).sin().powf(freedom - 1.0))
        .collect();
    // The integral to a right angle is half of the whole.
    let tail = 2.0 * (1.0 - p) * density.iter().sum::<f64>();
    let (mut sum, mut i) = (0.0, 0);
    while i + 1 < STEPS && sum + density[i] < tail {
        sum += density[i];
        i += 1;
    }
    let u = (i as f64 + (tail - sum) / density[i]) * width;
    freedom.sqrt() / u.tan()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64], images: Option<usize>) -> Measured {
        Measured {
            values: values.to_vec(),
            images,
            runs: vec![],
        }
    }

    fn term(weight: f64, training: &str, values: &[f64], images: Option<usize>) -> Term {
        Term {
            weight,
            value: measured(values, images),
            training: training.to_string(),
        }
    }

    fn contrast(terms: Vec<Term>, pooling: Pooling, prior: f64) -> Contrast {
        Contrast {
            estimate: terms.iter().map(|t| t.weight * t.value.mean()).sum(),
            terms,
            pooling,
            prior,
        }
    }

    /// Half the width of an interval, divided by the standard normal quantile.
    fn error(contrast: &Contrast) -> f64 {
        let interval = contrast.interval(0.025);
        (interval.high - interval.estimate) / normal_quantile(0.975)
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_963_985),
            (0.995, 2.575_829_304),
            (0.999, 3.090_232_306),
            (0.01, -2.326_347_874),
            (0.9, 1.281_551_566),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-7, "{p}");
        }
        // Abramowitz and Stegun, table 26.10.
        for (p, freedom, t) in [
            (0.975, 1.0, 12.706_205),
            (0.995, 1.0, 63.656_741),
            (0.975, 2.0, 4.302_653),
            (0.995, 3.0, 5.840_909),
            (0.9975, 4.0, 5.597_568),
            (0.975, 10.0, 2.228_139),
            (0.995, 10.0, 3.169_273),
            (0.995, 30.0, 2.749_996),
            (0.9975, 20.0, 3.153_401),
            (0.975, f64::INFINITY, 1.959_964),
        ] {
            let ours = student_quantile(p, freedom);
            assert!(
                (ours - t).abs() < 1e-3 * t.max(1.0),
                "{p}, {freedom}: {ours}"
            );
        }
        assert!((student_quantile(0.9975, 5.0) / 4.773_341 - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_mean_over_seeds_has_both_errors() {
        let one = measured(&[0.5], Some(10_000));
        assert_eq!(one.spread(), None);
        assert!((one.standard_error() - 0.005).abs() < 1e-12);
        let three = measured(&[0.4, 0.5, 0.6], Some(10_000));
        assert!((three.spread().unwrap() - 0.1).abs() < 1e-12);
        let expected = (0.005f64.powi(2) + 0.01 / 3.0).sqrt();
        assert!((three.standard_error() - expected).abs() < 1e-12);
        assert!(measured(&[0.0], Some(100)).standard_error() > 0.0);
    }

    #[test]
    fn pooling_says_which_errors_add() {
        let terms = || {
            vec![
                term(0.5, "a", &[0.5], Some(10_000)),
                term(0.5, "a", &[0.5], Some(10_000)),
                term(-0.5, "b", &[0.5], Some(10_000)),
                term(-0.5, "c", &[0.5], Some(10_000)),
            ]
        };
        // Each has 0.5 points over the images.
        for (pooling, expected) in [
            (Pooling::Terms, 0.005),
            (Pooling::Trainings, 0.005 * 1.5f64.sqrt()),
            (Pooling::Sides, 0.005 * 2f64.sqrt()),
        ] {
            let se = error(&contrast(terms(), pooling, 0.0));
            assert!((se - expected).abs() < 1e-9, "{pooling:?}: {se}");
        }
        let with_prior = error(&contrast(terms(), Pooling::Sides, 0.005));
        assert!((with_prior - 0.01).abs() < 1e-9);
    }

    #[test]
    fn seeds_replace_the_prior_once_there_are_enough() {
        let two = |d: f64| vec![term(1.0, "a", &[0.5 - d, 0.5 + d], None)];
        // One degree of freedom: the wider interval of both.
        let small = contrast(two(1e-4), Pooling::Sides, 0.005);
        assert!((error(&small) - 0.005 / 2f64.sqrt()).abs() < 1e-9);
        let large = contrast(two(0.1), Pooling::Sides, 0.005);
        let quantile = student_quantile(0.975, 1.0) / normal_quantile(0.975);
        assert!((error(&large) - 0.1 * quantile).abs() < 1e-9);
        // Six: the estimate alone, with Student's quantile.
        let values: Vec<f64> = (0..7).map(|i| 0.5 + 1e-4 * f64::from(i)).collect();
        let many = contrast(vec![term(1.0, "a", &values, None)], Pooling::Sides, 0.005);
        let spread = measured(&values, None).spread().unwrap();
        let half = many.interval(0.025).high - many.estimate;
        let expected = student_quantile(0.975, 6.0) * spread / 7f64.sqrt();
        assert!((half - expected).abs() < 1e-12);
    }

    #[test]
    fn a_slope_is_found_again() {
        let x = [5.0, 6.0, 8.0];
        let weights = slope_weights(&x);
        let value: f64 = x
            .iter()
            .zip(&weights)
            .map(|(x, w)| (3.0 + 2.0 * x) * w)
            .sum();
        assert!((value - 2.0).abs() < 1e-12);
        assert!(weights.iter().sum::<f64>().abs() < 1e-12);
    }
}
