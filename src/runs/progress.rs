//! The progress of a run: a bar if stderr is a terminal, about twenty plain lines if stdout is not.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::{is_quiet, note, stdout_has_lines};

/// Plain lines that a run prints if stdout is not a terminal.
const PLAIN_LINES: u64 = 20;

/// The progress of a training run.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Whether plain lines are printed.
    is_plain: bool,
    started: Instant,
    steps: u64,
    images_per_step: usize,
    chance_loss: f64,
    /// Steps of this run that were taken before this process.
    first_step: u64,
}

/// A bar on stderr if it is a terminal. `template` is as `indicatif` defines it.
pub fn bar(template: &str, length: u64) -> Option<ProgressBar> {
    let has_bar = std::io::stderr().is_terminal() && !is_quiet();
    has_bar.then(|| {
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
    })
}

impl Progress {
    /// A run of `steps` steps of `images_per_step` images, whose loss is `chance_loss` before
    /// anything is learned. The bar is drawn on stderr. Plain lines go to stdout, also while a bar
    /// is drawn, since stdout may be a log file.
    pub fn new(steps: u64, images_per_step: usize, chance_loss: f64) -> Self {
        let bar = bar("{bar:30} step {pos}/{len}  {msg}  {eta} left", steps);
        Progress {
            is_plain: bar.is_none() || (stdout_has_lines() && !std::io::stdout().is_terminal()),
            bar,
            started: Instant::now(),
            steps,
            images_per_step,
            chance_loss,
            first_step: 0,
        }
    }

    /// Sets the number of steps taken before this process, and their `seconds`.
    pub fn start_at(&mut self, steps: u64, seconds: f64) {
        self.first_step = steps;
        if steps == 0 {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(steps);
        }
        if self.is_plain {
            note!("going on after step {steps}, {seconds:.0} s into the run");
        }
    }

    /// Excludes a time without steps from the speed.
    pub fn pause(&mut self, time: Duration) {
        self.started += time;
    }

    /// Reports the loss of `step` (counted from 1).
    pub fn step(&self, step: u64, loss: f32) {
        let seconds = self.started.elapsed().as_secs_f64();
        let taken = step - self.first_step;
        let rate = (taken * self.images_per_step as u64) as f64 / seconds.max(1e-9);
        let message = format!(
            "loss {loss:.4} (chance {:.4})  {rate:.1} images/s",
            self.chance_loss
        );
        if self.is_plain && is_plain_step(step, self.steps) {
            let left = seconds / taken as f64 * (self.steps - step) as f64;
            note!("step {step}/{}  {message}  {left:.0} s left", self.steps);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(message);
            bar.set_position(step);
        }
    }

    /// Prints `words` on stdout, above the bar if there is one.
    pub fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{words}")),
            None => note!("{words}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a plain line is due: at the first and the last step, and evenly between them.
fn is_plain_step(step: u64, steps: u64) -> bool {
    step == 1 || step == steps || step.is_multiple_of(steps.div_ceil(PLAIN_LINES))
}

#[cfg(test)]
mod tests {
    use super::is_plain_step;

    #[test]
    fn a_run_prints_about_twenty_lines() {
        for steps in [1, 2, 19, 20, 21, 100, 5_000, 123_457] {
            let lines = (1..=steps)
                .filter(|&step| is_plain_step(step, steps))
                .count() as u64;
            assert!(
                lines >= steps.min(11) && lines <= 22,
                "{steps} steps: {lines} lines"
            );
        }
    }
}
