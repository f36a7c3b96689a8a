//! The printed table of a profile: one row per kernel, the time outside of kernels, the step with
//! and without recording, and a GPU's counts.

use std::fmt;
use std::ops::Range;

use super::{Profile, Row};
use crate::device::gpu::StreamCounts;
use crate::device::profiler::Clock;

/// If kernels take less than this share of a step, the table explains the rest.
const ACCOUNTED: f64 = 0.95;

/// A range of steps in words, counted from 1.
fn steps(range: &Range<u64>) -> String {
    match range.end - range.start {
        1 => format!("step {}", range.end),
        _ => format!("steps {} to {}", range.start + 1, range.end),
    }
}

/// A rate in 10^9 per second, or `-` if nothing was measured.
fn rate(amount: u64, seconds: f64) -> String {
    if amount > 0 && seconds > 0.0 {
        format!("{:.1}", amount as f64 / seconds / 1e9)
    } else {
        "-".to_string()
    }
}

impl Profile {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, cells: [&str; 5]) -> fmt::Result {
        let [calls, ms, share, flops, bytes] = cells;
        writeln!(
            f,
            "{name:<40} {calls:>8} {ms:>10} {share:>8} {flops:>9} {bytes:>8}"
        )
    }

    /// Milliseconds per step, and the share of a recorded step.
    fn time(&self, seconds_per_step: f64) -> [String; 2] {
        let share = 100.0 * seconds_per_step / self.recorded_seconds;
        [
            format!("{:.3}", 1e3 * seconds_per_step),
            format!("{share:.1} %"),
        ]
    }

    fn kernel(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let steps = self.recorded_steps();
        let calls = format!("{:.0}", row.calls as f64 / steps);
        let [mut ms, mut share] = self.time(row.seconds / steps);
        if row.launches == 0 {
            // Recorded, but not timed: an upload, or an adapter without timestamps.
            (ms, share) = ("-".to_string(), "-".to_string());
        }
        let [flops, bytes] = [row.flops, row.bytes].map(|amount| rate(amount, row.seconds));
        self.row(f, &row.kernel, [&calls, &ms, &share, &flops, &bytes])?;
        if row.parts.len() < 2 {
            return Ok(());
        }
        for part in &row.parts {
            let calls = format!("{:.0}", part.launches as f64 / steps);
            let [ms, share] = self.time(part.seconds / steps);
            let name = format!("  {}", part.kernel);
            self.row(f, &name, [&calls, &ms, &share, "", ""])?;
        }
        Ok(())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.kernel_seconds();
        let rest = (self.recorded_seconds - kernels).max(0.0);
        if self.clock == Clock::Missing {
            writeln!(
                f,
                "the adapter has no timestamps, so that its kernels can be counted and not timed"
            )?;
        } else {
            let [ms, share] = self.time(rest);
            self.row(f, "not in a kernel", ["", &ms, &share, "", ""])?;
        }
        let [ms, share] = self.time(self.recorded_seconds);
        self.row(f, "a step, recorded", ["", &ms, &share, "", ""])?;
        let [ms, share] = self.time(self.plain_seconds);
        self.row(f, "a step, not recorded", ["", &ms, &share, "", ""])?;
        match self.clock {
            _ if kernels > self.recorded_seconds => writeln!(
                f,
                "kernels ran at the same time: their rows sum to more than the step"
            ),
            Clock::Host if kernels < ACCOUNTED * self.recorded_seconds => writeln!(
                f,
                "not in a kernel: the draw of the views, the tape, memory that is freed, metrics"
            ),
            Clock::Adapter if kernels < ACCOUNTED * self.recorded_seconds => writeln!(
                f,
                "not in a kernel: uploads, what lies between two kernels, and the adapter's waits for the host"
            ),
            _ => Ok(()),
        }
    }

    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, later)) = self.counts.split_first() else {
            return Ok(());
        };
        writeln!(
            f,
            "{:<40} {:>10} {:>22}",
            "a step on the GPU", "the first", "a later one, at most"
        )?;
        let mut row = |name: &str, count: fn(&StreamCounts) -> u64| {
            let most = later.iter().map(count).max().unwrap_or(0);
            writeln!(f, "{name:<40} {:>10} {most:>22}", count(first))
        };
        row("dispatches", |c| c.dispatches)?;
        row("submissions", |c| c.submissions)?;
        row("new bind groups", |c| c.bind_groups)?;
        row("new buffers", |c| c.allocations)?;
        row("waits of the host inside the step", |c| c.waits)?;
        self.memory(f)
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            f,
            "{:<40} {:>10} {:>10} {:>14}",
            "memory, MiB", "block", "free", "largest region"
        )?;
        for (number, block) in self.blocks.iter().enumerate() {
            let name = format!("block {}", number + 1);
            let [bytes, free, largest] = [block.bytes, block.free, block.largest_free].map(mib);
            writeln!(f, "{name:<40} {bytes:>10} {free:>10} {largest:>14}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = &self.phases;
        writeln!(
            f,
            "profile of {} on {}, after {} of warm-up and {} without a recording; a mean step:",
            steps(&phases.recorded),
            self.device,
            steps(&phases.warm_up),
            steps(&phases.plain)
        )?;
        self.row(f, "kernel", ["calls", "ms", "share", "GFLOP/s", "GB/s"])?;
        for row in &self.rows {
            self.kernel(f, row)?;
        }
        self.times(f)?;
        self.counts(f)
    }
}
