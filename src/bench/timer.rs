//! Times of repeated work.

use std::time::Instant;

use super::{Bench, Part, Row, Unit};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// Repetitions are measured in rounds of about this many seconds, so that waiting does not count.
const ROUND_SECONDS: f64 = 0.02;
/// Rounds per measurement, if there is time for them. Candidates take turns.
const ROUNDS: usize = 5;
/// A repetition of this many seconds is a round of its own.
const LONG_SECONDS: f64 = 0.5;
/// Maximum number of repetitions per round.
const REPETITIONS: usize = 2000;

/// Work to be timed. The argument is the number of the repetition, so that repetitions may take
/// turns with their input.
pub type Work<'a> = Box<dyn Fn(usize) -> Result<Tensor> + 'a>;

/// The shortest and the median time of one repetition, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub min: f64,
    pub median: f64,
}

/// Seconds per repetition.
pub fn seconds(device: &Device, work: &Work<'_>, repetitions: usize) -> Result<f64> {
    let started = Instant::now();
    for i in 0..repetitions {
        work(i)?;
    }
    device.wait()?;
    Ok(started.elapsed().as_secs_f64() / repetitions as f64)
}

impl Bench<'_> {
    /// Times each candidate, after a first repetition that compiles its kernels. `before` is called
    /// with the index of a candidate before it runs.
    pub fn time(
        &self,
        candidates: &[Work<'_>],
        before: &dyn Fn(&Device, usize),
    ) -> Result<Vec<Time>> {
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); candidates.len()];
        let mut repetitions = Vec::new();
        for (i, work) in candidates.iter().enumerate() {
            before(self.device, i);
            // The first repetition also compiles, which does not matter if it takes long.
            let mut once = seconds(self.device, work, 1)?;
            if once < LONG_SECONDS {
                once = seconds(self.device, work, 1)?;
            }
            let fitting = (ROUND_SECONDS / once).clamp(1.0, REPETITIONS as f64);
            repetitions.push(fitting as usize);
        }
        for round in 0..ROUNDS {
            if round > 0 && Instant::now() >= self.deadline {
                break;
            }
            for (i, work) in candidates.iter().enumerate() {
                before(self.device, i);
                samples[i].push(seconds(self.device, work, repetitions[i])?);
            }
        }
        let time = |mut samples: Vec<f64>| {
            samples.sort_by(f64::total_cmp);
            Time {
                min: samples[0],
                median: samples[samples.len() / 2],
            }
        };
        Ok(samples.into_iter().map(time).collect())
    }

    /// Times one candidate.
    pub fn time_one(&self, work: Work<'_>) -> Result<Time> {
        Ok(self.time(&[work], &|_, _| {})?[0])
    }

    /// A row with a rate of `amount` units per repetition.
    pub fn row(
        &self,
        part: Part,
        name: impl Into<String>,
        time: Time,
        amount: Option<(f64, Unit)>,
    ) -> Row {
        let rate = amount.map(|(amount, _)| amount / time.min);
        Row {
            part,
            name: name.into(),
            variant: None,
            seconds: time.min,
            median: time.median,
            rate,
            unit: amount.map(|(_, unit)| unit),
            share: None,
            intensity: None,
            note: String::new(),
            class: None,
        }
    }
}
