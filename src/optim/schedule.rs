//! Learning-rate schedules.

use std::f64::consts::PI;
use std::fmt;

use crate::error::{Error, Result};

/// The learning rate of each step as a multiple of a base rate: a linear warm-up and a decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate rises linearly over this many steps, the first of which has `1 / warmup` of it.
    pub warmup: u64,
    pub decay: Decay,
}

/// The decay of a rate. Steps are counted from the start of the training, as in Goyal et al. 2017,
/// and not from the end of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// None.
    Constant,
    /// The factor `gamma` after each `every` steps (at least 1), as `StepLR` of PyTorch.
    Every { every: u64, gamma: f64 },
    /// The factor `gamma` at each milestone, as `MultiStepLR` of PyTorch.
    Milestones { at: Milestones, gamma: f64 },
    /// Half a cosine from the end of the warm-up down to 0 at step `total` (Loshchilov and Hutter
    /// 2017; Chen et al. 2020), as `CosineAnnealingLR` of PyTorch. 0 after that.
    Cosine { total: u64 },
}

/// The steps at which a rate decays, in rising order: 1 to 8. A fixed number, so that settings can
/// be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestones([u64; Milestones::MOST]);

impl Milestones {
    const MOST: usize = 8;
    /// Fills the places after the last milestone. No training has as many steps.
    const NONE: u64 = u64::MAX;

    /// # Errors
    /// `Error::Usage` unless there are 1 to 8 steps in rising order.
    pub fn new(steps: &[u64]) -> Result<Self> {
        let is_rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        let is_last = steps.last().is_some_and(|&last| last < Self::NONE);
        if !is_rising || !is_last || steps.len() > Self::MOST {
            return Err(Error::usage(format!(
                "the milestones are {steps:?}; expected 1 to {} steps in rising order",
                Self::MOST
            )));
        }
        let mut all = [Self::NONE; Self::MOST];
        all[..steps.len()].copy_from_slice(steps);
        Ok(Milestones(all))
    }

    /// The steps.
    pub fn steps(&self) -> &[u64] {
        let count = self.0.iter().take_while(|&&step| step < Self::NONE).count();
        &self.0[..count]
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decay {
            Decay::Constant => write!(f, "constant")?,
            Decay::Every { every, gamma: 0.1 } => write!(f, "step: a tenth every {every} steps")?,
            Decay::Every { every, gamma } => write!(f, "step: times {gamma} every {every} steps")?,
            Decay::Milestones { at, gamma } => {
                let at: Vec<String> = at.steps().iter().map(u64::to_string).collect();
                write!(f, "step: times {gamma} at steps {}", at.join(", "))?;
            }
            Decay::Cosine { total } => {
                return write!(f, "cosine to {total}, warm-up {}", self.warmup);
            }
        }
        match self.warmup {
            0 => Ok(()),
            warmup => write!(f, ", warm-up {warmup}"),
        }
    }
}

impl Schedule {
    /// The base rate throughout.
    pub const fn constant() -> Self {
        Schedule {
            warmup: 0,
            decay: Decay::Constant,
        }
    }

    /// A tenth of the rate after each `every` steps.
    pub const fn tenth_every(every: u64) -> Self {
        Schedule {
            warmup: 0,
            decay: Decay::Every { every, gamma: 0.1 },
        }
    }

    /// Half a cosine down to 0 at step `total`.
    pub const fn cosine(total: u64) -> Self {
        Schedule {
            warmup: 0,
            decay: Decay::Cosine { total },
        }
    }

    /// Reads the words of a command line for a training of `steps` steps: `constant`, `cosine`,
    /// `step:2000,4000` (the factor 0.1 at these steps), or `step:2000,4000x0.2` with another
    /// factor.
    ///
    /// # Errors
    /// `Error::Usage` if `words` is none of these, if the factor is not above 0 and at most 1, or
    /// if the warm-up is not shorter than the training.
    pub fn parse(words: &str, warmup: u64, steps: u64) -> Result<Self> {
        let unknown = || {
            Error::usage(format!(
                "the schedule is '{words}'; expected constant, cosine, step:STEP,STEP or \
                 step:STEP,STEPxFACTOR"
            ))
        };
        let decay = match (words, words.strip_prefix("step:")) {
            ("constant", _) => Decay::Constant,
            ("cosine", _) => Decay::Cosine { total: steps },
            (_, Some(milestones)) => {
                let (at, gamma) = milestones.split_once('x').unwrap_or((milestones, "0.1"));
                let at: Option<Vec<u64>> = at.split(',').map(|step| step.parse().ok()).collect();
                let gamma: f64 = gamma.parse().map_err(|_| unknown())?;
                if !(gamma > 0.0 && gamma <= 1.0) {
                    return Err(Error::usage(format!(
                        "the schedule '{words}' has the factor {gamma}; expected a number above 0 and at most 1"
                    )));
                }
                let at = Milestones::new(&at.ok_or_else(unknown)?)?;
                Decay::Milestones { at, gamma }
            }
            _ => return Err(unknown()),
        };
        if warmup > 0 && warmup >= steps {
            return Err(Error::usage(format!(
                "the warm-up has {warmup} steps and the training {steps}; expected a shorter warm-up"
            )));
        }
        Ok(Schedule { warmup, decay })
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(self, base: f64, step: u64) -> f32 {
        (base * self.warmup_factor(step) * self.decay_factor(step)) as f32
    }

    fn warmup_factor(self, step: u64) -> f64 {
        if step < self.warmup {
            (step + 1) as f64 / self.warmup as f64
        } else {
            1.0
        }
    }

    fn decay_factor(self, step: u64) -> f64 {
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Every { every, gamma } => power(gamma, step / every.max(1)),
            Decay::Milestones { at, gamma } => {
                let passed = at.steps().iter().filter(|&&milestone| milestone <= step);
                power(gamma, passed.count() as u64)
            }
            Decay::Cosine { total } => {
                let length = total.saturating_sub(self.warmup).max(1) as f64;
                let progress = step.saturating_sub(self.warmup) as f64 / length;
                0.5 * (1.0 + (PI * progress.min(1.0)).cos())
            }
        }
    }
}

/// `gamma` to the power of `count`. A tenth is divided by ten, which is exact for more rates.
fn power(gamma: f64, count: u64) -> f64 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    match gamma {
        0.1 => 10f64.powi(-count),
        gamma => gamma.powi(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_decay_divides_by_ten() {
        let schedule = Schedule::tenth_every(1000);
        let steps = [0, 999, 1000, 2500, u64::MAX];
        let rates = steps.map(|step| schedule.learning_rate(1e-3, step));
        assert_eq!(rates, [1e-3, 1e-3, 1e-4, 1e-5, 0.0]);
    }

    #[test]
    fn cosine_rises_and_falls_to_zero() {
        let schedule = Schedule {
            warmup: 10,
            ..Schedule::cosine(110)
        };
        let rates = [0, 4, 9, 10, 60, 110, 200].map(|step| schedule.learning_rate(2.0, step));
        let expected = [0.2, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-6, "{rates:?}");
        }
    }

    #[test]
    fn constant_is_constant() {
        assert_eq!(Schedule::constant().learning_rate(0.5, 12_345), 0.5);
        // A warm-up of one step has the whole rate at once.
        let short = Schedule::parse("constant", 1, 10).unwrap();
        assert_eq!(short.learning_rate(0.5, 0), 0.5);
    }

    #[test]
    fn words_are_read_and_printed() {
        for (words, warmup, printed) in [
            ("constant", 0, "constant"),
            ("constant", 5, "constant, warm-up 5"),
            ("cosine", 5, "cosine to 100, warm-up 5"),
            ("step:50", 0, "step: times 0.1 at steps 50"),
            (
                "step:50,80x0.5",
                5,
                "step: times 0.5 at steps 50, 80, warm-up 5",
            ),
        ] {
            let schedule = Schedule::parse(words, warmup, 100).unwrap();
            assert_eq!(schedule.to_string(), printed);
        }
        let every = Schedule::tenth_every(1000);
        assert_eq!(every.to_string(), "step: a tenth every 1000 steps");
        let decay = Decay::Every {
            every: 7,
            gamma: 0.5,
        };
        let half = Schedule { decay, ..every };
        assert_eq!(half.to_string(), "step: times 0.5 every 7 steps");
    }

    #[test]
    fn words_that_are_no_schedule_are_refused() {
        for (words, warmup, part) in [
            ("linear", 0, "'linear'"),
            ("step", 0, "'step'"),
            ("step:", 0, "'step:'"),
            ("step:5,x", 0, "'step:5,x'"),
            ("step:5xhalf", 0, "'step:5xhalf'"),
            ("step:5x0", 0, "factor 0"),
            ("step:5xNaN", 0, "factor NaN"),
            ("step:5,5", 0, "[5, 5]"),
            ("step:1,2,3,4,5,6,7,8,9", 0, "1 to 8"),
            ("step:18446744073709551615", 0, "rising"),
            ("cosine", 100, "100 steps"),
        ] {
            let error = Schedule::parse(words, warmup, 100).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{words}");
            assert!(error.to_string().contains(part), "{words}: {error}");
        }
    }
}
