//! The time of a step by kernel: which steps are measured, and the sums per kernel.

mod table;
mod trace;

use std::collections::HashMap;
use std::ops::Range;

use crate::device::MemoryBlock;
use crate::device::gpu::StreamCounts;
use crate::device::profiler::{Clock, Recording};
use crate::error::{Error, Result};

pub use trace::trace;

/// The trace's file in the run folder.
pub const TRACE: &str = "profile.json";

/// Steps before the timed ones. The first step compiles and allocates; the second shows whether
/// later steps do.
const WARM_UP: u64 = 2;
/// Number of steps timed without a recording, and of steps timed with one.
const TIMED: u64 = 3;

/// The steps of a training that a profile measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    pub warm_up: Range<u64>,
    pub plain: Range<u64>,
    pub recorded: Range<u64>,
}

impl Phases {
    /// The phases of a training from step `first` (counted from 0) to `end`.
    ///
    /// # Errors
    /// `Error::Usage` if it has fewer than four steps.
    pub fn new(first: u64, end: u64) -> Result<Self> {
        let left = end.saturating_sub(first);
        let timed = TIMED.min(left.saturating_sub(WARM_UP) / 2);
        if timed == 0 {
            return Err(Error::usage(format!(
                "--profile measures {WARM_UP} steps of warm-up, one without a recording and one with it, and the training \
                 has {left} steps to go; train for {} or more, or leave --profile out",
                WARM_UP + 2
            )));
        }
        let plain = first + WARM_UP;
        let recorded = plain + timed;
        Ok(Phases {
            warm_up: first..plain,
            plain: plain..recorded,
            recorded: recorded..recorded + timed,
        })
    }
}

/// A kernel of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The operation, with the kernel and stride of a convolution.
    pub kernel: String,
    /// Calls in all recorded steps.
    pub calls: u64,
    /// Launches in all recorded steps.
    pub launches: u64,
    pub seconds: f64,
    pub flops: u64,
    pub bytes: u64,
    /// On a GPU: its kernels, if there is more than one.
    pub parts: Vec<Row>,
}

/// The measurements of a profile.
#[derive(Clone, Debug)]
pub struct Profile {
    pub device: String,
    pub phases: Phases,
    pub clock: Clock,
    /// Sorted by time, longest first.
    pub rows: Vec<Row>,
    /// Seconds of a step without a recording.
    pub plain_seconds: f64,
    /// Seconds of a recorded step.
    pub recorded_seconds: f64,
    /// On a GPU: the counts of each step before the recorded ones.
    pub counts: Vec<StreamCounts>,
    /// On a GPU: the memory after the recorded steps.
    pub blocks: Vec<MemoryBlock>,
}

impl Profile {
    /// Seconds of kernels per recorded step.
    pub fn kernel_seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.seconds).sum::<f64>() / self.recorded_steps()
    }

    fn recorded_steps(&self) -> f64 {
        (self.phases.recorded.end - self.phases.recorded.start) as f64
    }
}

/// Returns the time of each kernel of a recording, longest first.
pub fn rows(recording: &Recording) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known = HashMap::new();
    // The row of each call.
    let mut of_call = Vec::with_capacity(recording.calls.len());
    for call in &recording.calls {
        let key = (call.name, call.work.label.as_deref());
        let row = *known.entry(key).or_insert_with(|| {
            rows.push(Row {
                kernel: match key {
                    (name, Some(label)) => format!("{name} {label}"),
                    (name, None) => name.to_string(),
                },
                ..Row::default()
            });
            rows.len() - 1
        });
        of_call.push(row);
        rows[row].calls += 1;
        rows[row].flops += call.work.flops;
        rows[row].bytes += call.work.bytes;
    }
    for span in &recording.spans {
        let Some(row) = of_call.get(span.call).map(|&row| &mut rows[row]) else {
            continue;
        };
        let seconds = span.end - span.start;
        row.launches += 1;
        row.seconds += seconds;
        let Some(launched) = &span.launched else {
            continue;
        };
        let known = row.parts.iter().position(|part| part.kernel == *launched);
        let at = known.unwrap_or(row.parts.len());
        if known.is_none() {
            row.parts.push(Row {
                kernel: launched.clone(),
                ..Row::default()
            });
        }
        row.parts[at].launches += 1;
        row.parts[at].seconds += seconds;
    }
    for row in &mut rows {
        row.parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    }
    rows.sort_by(|a, b| (b.seconds.total_cmp(&a.seconds)).then_with(|| b.calls.cmp(&a.calls)));
    rows
}
