//! Learning-rate schedules.

use std::fmt;

/// The learning rate of each step as a multiple of a base rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The base rate throughout.
    Constant,
    /// A tenth after each `every` steps (at least 1), as `StepLR` of PyTorch with gamma 0.1.
    StepDecay { every: u64 },
    /// Linear increase over the first `warmup` steps, then half a cosine down to 0 at step `total`
    /// (Loshchilov and Hutter 2017; Chen et al. 2020).
    Cosine { warmup: u64, total: u64 },
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Constant => write!(f, "constant"),
            Schedule::StepDecay { every } => write!(f, "step: a tenth every {every} steps"),
            Schedule::Cosine { warmup, total } => {
                write!(f, "cosine to {total}, warm-up {warmup}")
            }
        }
    }
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(self, base: f64, step: u64) -> f32 {
        let factor = match self {
            Schedule::Constant => 1.0,
            // After 400 decays, the rate is 0 in any case.
            Schedule::StepDecay { every } => 10f64.powi(-((step / every.max(1)).min(400) as i32)),
            Schedule::Cosine { warmup, .. } if step < warmup => (step + 1) as f64 / warmup as f64,
            Schedule::Cosine { warmup, total } => {
                let length = total.saturating_sub(warmup).max(1) as f64;
                let progress = ((step - warmup) as f64 / length).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        };
        (base * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_decay_divides_by_ten() {
        let schedule = Schedule::StepDecay { every: 1000 };
        let steps = [0, 999, 1000, 2500, u64::MAX];
        let rates = steps.map(|step| schedule.learning_rate(1e-3, step));
        assert_eq!(rates, [1e-3, 1e-3, 1e-4, 1e-5, 0.0]);
    }

    #[test]
    fn cosine_rises_and_falls_to_zero() {
        let schedule = Schedule::Cosine {
            warmup: 10,
            total: 110,
        };
        let rates = [0, 4, 9, 10, 60, 110, 200].map(|step| schedule.learning_rate(2.0, step));
        let expected = [0.2, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-6, "{rates:?}");
        }
    }

    #[test]
    fn constant_is_constant() {
        assert_eq!(Schedule::Constant.learning_rate(0.5, 12_345), 0.5);
    }
}
