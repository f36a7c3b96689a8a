//! The loop of a training run: steps, metrics, checkpoints, and how an interrupted run is resumed.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::checkpoint::{self, CHECKPOINT, PREVIOUS};
use super::folder::{RunFolder, StepMetrics};
use super::follow::Follow;
use super::profile::{self, Phases, Profile};
use super::progress::Progress;
use super::settings::{Switch, TrainingSettings};
use crate::autograd::PassOptions;
use crate::console::note;
use crate::device::gpu::StreamCounts;
use crate::device::{Device, Gpu};
use crate::distributed;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::nn::Module;
use crate::objectives::Protocol;
use crate::train::micro_batch::in_parts;
use crate::train::{Objective, PartialObjective, PendingStep, Trainer};

/// Maximum number of recorded steps whose losses have not been read.
const STEPS_AHEAD: usize = 2;

/// The length of a training, and the files that it writes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: u64,
    /// Images per step, for the speed.
    pub images_per_step: usize,
    /// The loss of a network whose results do not depend on the image.
    pub chance_loss: f64,
    /// Steps between two saved networks.
    pub save_every: Option<u64>,
    /// Whether a checkpoint is saved with each saved network.
    pub keep_checkpoints: bool,
    /// If set to n, training ends once the mean loss of n steps is not below that of the n steps
    /// before them.
    pub stop_when_flat: Option<u64>,
    /// Minimum time between two checkpoints. With zero, every step writes one.
    pub checkpoint_every: Duration,
}

/// Whether the mean of the last `window` losses is not below that of the `window` before.
fn is_flat(losses: &[f32], window: u64) -> bool {
    let window = window as usize;
    if window == 0 || losses.len() < 2 * window {
        return false;
    }
    let (before, last) = losses[losses.len() - 2 * window..].split_at(window);
    let sum = |losses: &[f32]| losses.iter().map(|&l| f64::from(l)).sum::<f64>();
    sum(last) >= sum(before)
}

/// The options of the passes of a training.
pub(super) fn pass_options(protocol: Protocol, settings: &TrainingSettings) -> PassOptions {
    let group = distributed::current();
    let is_synchronized = match settings.sync_batch_norm {
        Some(switch) => switch == Switch::On,
        None => protocol == Protocol::Sound,
    };
    PassOptions {
        recompute: settings.recompute,
        activations: settings.precision,
        rounds_factors: settings.rounds_factors(),
        synchronized: (group.size() > 1 && is_synchronized).then_some(group),
        ..PassOptions::default()
    }
}

/// The measurements of a training.
pub struct Trained {
    /// The loss of each step, before its update.
    pub losses: Vec<f32>,
    /// Seconds of training, without evaluations, including those before an interruption.
    pub seconds: f64,
    /// Peak bytes held for tensors.
    pub peak_bytes: u64,
    /// The last accuracy of nearest neighbours during the training.
    pub online_top1: Option<f64>,
}

impl Trained {
    /// Images per second over all steps.
    pub fn images_per_second(&self, plan: &Plan) -> f64 {
        (self.losses.len() * plan.images_per_step) as f64 / self.seconds
    }
}

/// Divides the batches of a training into micro-batches, and among the ranks of the run.
pub(super) fn divided<M: Module, O: PartialObjective<M>>(
    trainer: Trainer<M, O>,
    batch_size: usize,
    micro_batch: Option<usize>,
) -> Trainer<M, O> {
    let trainer = match in_parts(batch_size, micro_batch) {
        Some(images) => trainer.with_micro_batch(images),
        None => trainer,
    };
    match distributed::current() {
        group if group.size() > 1 => trainer.with_group(group),
        _ => trainer,
    }
}

/// Adds how the run is resumed to an error of the device, such as a lost one or short memory, or of
/// an image that was changed during the run.
fn with_resume(error: Error) -> Error {
    let advice = "the same command with --resume continues from the last checkpoint";
    match error {
        Error::Device { device, message } => Error::device(device, format!("{message}; {advice}")),
        Error::Data { path, message } => Error::data(path, format!("{message}; {advice}")),
        other => other,
    }
}

/// Trains to the end of `plan`, from the last checkpoint in `folder` if there is one.
/// `save_network` is called after each `save_every` steps with the number of steps, and returns the
/// bytes of the file `encoder-stepN.safetensors`. `follow` records the steps. If `profile` is set,
/// the first steps are measured: a table is printed, and a trace is written to the folder.
///
/// A run that was interrupted and resumed has bitwise the same losses and weights as one that was
/// not, because a step depends only on the weights, the optimiser's state, the seed and its number.
/// The checkpoint of the last step stays in the folder, for the evaluation that follows, and for an
/// extension of the run.
///
/// # Errors
/// `Error::Stopped` if a stop is requested before the last step, after a checkpoint of the steps
/// taken was written; otherwise those of the objective and of the files.
pub fn train<M: Module, O: Objective<M>>(
    device: &Device,
    trainer: &mut Trainer<M, O>,
    plan: &Plan,
    folder: &mut RunFolder,
    save_network: impl Fn(&M, u64) -> Result<Vec<u8>>,
    follow: &mut Follow<'_, M>,
    profile: bool,
) -> Result<Trained> {
    let (first_step, peak_before) = checkpoint::restore(device, trainer, folder)?;
    if first_step == 0 && folder.is_resumed() {
        note!(
            "no checkpoint in {}, so the run starts at step 1",
            folder.path().display()
        );
    }
    let mut run = Run {
        device,
        trainer,
        plan,
        folder,
        save_network,
        follow,
        losses: Vec::new(),
        seconds_before: 0.0,
        started: Instant::now(),
        progress: Progress::new(plan.steps, plan.images_per_step, plan.chance_loss),
        last_checkpoint: Instant::now(),
        next: first_step,
        first: first_step,
        is_flat: false,
        online: None,
        measured: None,
        peak_before,
    };
    for metrics in run.folder.keep_metrics(first_step)? {
        run.losses.push(metrics.loss);
        run.seconds_before = metrics.seconds;
        run.online = metrics.online_knn_top1.or(run.online);
    }
    run.progress.start_at(first_step, run.seconds_before);
    run.check_flatness();
    let before = distributed::traffic();
    let trained = run.all(profile);
    run.progress.finish();
    trained.map_err(with_resume)?;
    let ranks = distributed::current().size();
    if ranks > 1 && run.next > first_step {
        let (after, steps) = (distributed::traffic(), run.next - first_step);
        note!(
            "ranks   {ranks}; per step {} exchanges, of which each rank received {:.2} MiB; gradients were exchanged \
             for {:.1} ms, of which the rank waited {:.1} ms",
            (after.exchanges - before.exchanges) / steps,
            (after.received - before.received) as f64 / steps as f64 / f64::from(1 << 20),
            1e3 * (after.exchanging - before.exchanging).as_secs_f64() / steps as f64,
            1e3 * (after.awaited - before.awaited).as_secs_f64() / steps as f64
        );
    }
    let seconds = run.seconds();
    if run.next > first_step {
        run.checkpoint()?;
    }
    Ok(Trained {
        seconds,
        peak_bytes: run.peak(),
        online_top1: run.online,
        losses: run.losses,
    })
}

struct Run<'a, 'f, M, O, S> {
    device: &'a Device,
    trainer: &'a mut Trainer<M, O>,
    plan: &'a Plan,
    folder: &'a mut RunFolder,
    save_network: S,
    follow: &'a mut Follow<'f, M>,
    losses: Vec<f32>,
    seconds_before: f64,
    started: Instant,
    progress: Progress,
    last_checkpoint: Instant,
    /// The step that comes next.
    next: u64,
    /// The first step of this process.
    first: u64,
    /// Whether the training has ended because its loss no longer falls.
    is_flat: bool,
    /// The last accuracy of nearest neighbours.
    online: Option<f64>,
    /// While steps are measured: the GPU's counts of each step.
    measured: Option<Vec<StreamCounts>>,
    /// Peak number of bytes that the device held before the run was interrupted.
    peak_before: u64,
}

impl<M, O, S> Run<'_, '_, M, O, S>
where
    M: Module,
    O: Objective<M>,
    S: Fn(&M, u64) -> Result<Vec<u8>>,
{
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn peak(&self) -> u64 {
        self.device.memory().peak.max(self.peak_before)
    }

    /// Takes the remaining steps. If `profile` is set, the first of them are measured.
    fn all(&mut self, profile: bool) -> Result<()> {
        let (first, end) = (self.next, self.plan.steps);
        if profile {
            match Phases::new(first, end) {
                Ok(phases) => self.profile(phases)?,
                Err(error) if first == 0 => return Err(error),
                Err(_) => self.progress.say("too few steps remain for a profile"),
            }
        }
        self.steps(self.next..end)
    }

    /// Ends the training if this is a step at which its losses are compared, and they no longer
    /// fall.
    fn check_flatness(&mut self) {
        let due = |&window: &u64| self.next > 0 && self.next.is_multiple_of(window);
        let window = self.plan.stop_when_flat.filter(due);
        if window.is_some_and(|window| is_flat(&self.losses, window)) {
            let words = format!(
                "the loss no longer falls; training ends after {} steps",
                self.next
            );
            self.progress.say(&words);
            self.is_flat = true;
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        if self.folder.writes() {
            self.folder.sync_metrics()?;
            checkpoint::write(
                self.device,
                self.trainer,
                self.next,
                self.peak(),
                self.folder,
            )?;
        }
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Takes these steps, unless the training has ended, and waits for their losses.
    ///
    /// # Errors
    /// `Error::Stopped` if a stop is requested, after a checkpoint was written; otherwise as
    /// [`train`].
    fn steps(&mut self, steps: Range<u64>) -> Result<()> {
        let plan = self.plan;
        let mut pending = VecDeque::new();
        for step in steps {
            if self.is_flat {
                break;
            }
            let begun = self.begin(step);
            if let Err(Error::Data { .. }) = begun
                && self.next > self.first
            {
                // An image can no longer be decoded. The steps before it are whole.
                for step in pending {
                    self.finish(step)?;
                }
                self.checkpoint()?;
                return begun.map(drop);
            }
            pending.push_back(begun?);
            self.folder.keep();
            let done = step + 1;
            self.next = done;
            let saves = plan.save_every.is_some_and(|n| done.is_multiple_of(n));
            let is_due = self.last_checkpoint.elapsed() >= plan.checkpoint_every;
            let compares = plan
                .stop_when_flat
                .filter(|&window| done.is_multiple_of(window));
            // The first rank writes the checkpoints, so it decides when.
            let is_due = done < plan.steps && is_due && self.folder.writes();
            let (stop, checkpoint) = interrupt::agreed(is_due)?;
            // Checkpoints, evaluations and the comparison of losses require that no step is
            // pending.
            let evaluates = self.follow.is_due(done);
            let waits = saves || checkpoint || evaluates || compares.is_some() || stop.is_some();
            let ahead = if waits { 0 } else { STEPS_AHEAD };
            while pending.len() > ahead
                && let Some(oldest) = pending.pop_front()
            {
                self.finish(oldest)?;
            }
            if saves {
                let bytes = (self.save_network)(&self.trainer.module, done)?;
                self.folder
                    .write(&format!("encoder-step{done}.safetensors"), &bytes)?;
                if plan.keep_checkpoints && self.folder.writes() {
                    let bytes = checkpoint::bytes(self.device, self.trainer, done, self.peak())?;
                    self.folder.write(&checkpoint::kept_after(done), &bytes)?;
                }
            }
            self.check_flatness();
            if self.is_flat {
                break;
            }
            let stop = stop.filter(|_| done < plan.steps);
            if checkpoint || stop.is_some() {
                self.checkpoint()?;
            }
            if let Some(cause) = stop {
                return Err(Error::Stopped {
                    cause,
                    place: format!("after step {done} of {}", plan.steps),
                    folder: Some(self.folder.path().to_path_buf()),
                });
            }
        }
        for step in pending {
            self.finish(step)?;
        }
        Ok(())
    }

    fn begin(&mut self, step: u64) -> Result<PendingStep> {
        let Some(counts) = &mut self.measured else {
            return self.trainer.step(step);
        };
        self.device.profiler().begin_step(step);
        let gpu = self.device.as_gpu();
        let before = gpu.map(Gpu::counts);
        let pending = self.trainer.step(step)?;
        if let (Some(before), Some(after)) = (before, gpu.map(Gpu::counts)) {
            counts.push(after.since(before));
        }
        Ok(pending)
    }

    fn finish(&mut self, pending: PendingStep) -> Result<()> {
        let (step, learning_rate) = (pending.step + 1, pending.learning_rate);
        let finished = self.trainer.finish_scaled(pending)?;
        let (loss, loss_scale) = (finished.loss, finished.loss_scale);
        if finished.overflows > 0 {
            self.progress.say(&format!(
                "step {step}: a gradient overflowed f16; the step was taken again, its loss scaled by {}",
                loss_scale.unwrap_or(1.0)
            ));
        }
        self.losses.push(loss);
        self.progress.step(step, loss);
        let seconds = self.seconds();
        let online_knn_top1 = if self.follow.is_due(step) {
            self.evaluate(step)?
        } else {
            None
        };
        if let Some(gpu) = self.device.as_gpu().filter(|_| step == self.first + 1) {
            let compiled = gpu.compiled();
            self.progress.say(&format!(
                "start   the first step ended after {:.1} s; {} kernels were compiled, in {:.1} s added up over threads",
                seconds - self.seconds_before,
                compiled.kernels,
                compiled.seconds
            ));
        }
        let metrics = StepMetrics {
            step,
            loss,
            learning_rate,
            loss_scale,
            online_knn_top1,
            seconds,
        };
        self.folder.append(&metrics)?;
        self.follow.record(self.folder, &metrics)
    }

    /// Evaluates the encoder after `step` steps. Its time does not count as training.
    fn evaluate(&mut self, step: u64) -> Result<Option<f64>> {
        let started = Instant::now();
        let top1 = self.follow.evaluate(&self.trainer.module, step)?;
        if let Some(top1) = top1 {
            let words = format!("step {step}: {}", self.follow.words(top1));
            self.progress.say(&words);
            self.online = Some(top1);
        }
        let spent = started.elapsed();
        self.started += spent;
        self.progress.pause(spent);
        Ok(top1)
    }

    /// Seconds that each of these steps takes.
    fn seconds_per_step(&mut self, steps: &Range<u64>) -> Result<f64> {
        let started = Instant::now();
        self.steps(steps.clone())?;
        Ok(started.elapsed().as_secs_f64() / (steps.end - steps.start) as f64)
    }

    /// Takes the next steps, measures them, prints the profile, and writes its trace to the folder.
    /// They are ordinary steps of the training.
    fn profile(&mut self, phases: Phases) -> Result<()> {
        self.measured = Some(Vec::new());
        self.steps(phases.warm_up.clone())?;
        let plain_seconds = self.seconds_per_step(&phases.plain)?;
        self.device.start_recording();
        let recorded_seconds = self.seconds_per_step(&phases.recorded);
        let recording = self.device.stop_recording()?;
        let recorded_seconds = recorded_seconds?;
        let counts = self.measured.take().unwrap_or_default();
        if self.next < phases.recorded.end {
            note!("the training ended before its profile did; there is none");
            return Ok(());
        }
        let profile = Profile {
            device: self.device.name(),
            phases,
            clock: recording.clock,
            rows: profile::rows(&recording),
            plain_seconds,
            recorded_seconds,
            counts,
            blocks: self.device.as_gpu().map_or(Vec::new(), Gpu::blocks),
        };
        let trace = profile::trace(&profile.device, &recording).to_string();
        self.folder.write(profile::TRACE, trace.as_bytes())?;
        let path = self.folder.path().join(profile::TRACE);
        self.progress
            .say(&format!("{profile}trace   {}", path.display()));
        Ok(())
    }
}

/// Which parts of a training run are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All steps, the evaluation and the page. The last checkpoint stays, so that the run can be
    /// extended.
    Whole,
    /// All steps and the evaluation, without the page and the last checkpoint.
    Job,
    /// This number of steps, without an evaluation.
    Steps(u64),
}

impl Extent {
    /// The number of steps to take in a run of `all` steps.
    pub(super) fn steps(self, all: u64) -> u64 {
        match self {
            Extent::Steps(steps) => steps,
            _ => all,
        }
    }

    /// Removes the checkpoints that are not needed once the run has ended.
    pub(super) fn remove_checkpoints(self, folder: &RunFolder) -> Result<()> {
        folder.remove(PREVIOUS)?;
        match self {
            Extent::Job => folder.remove(CHECKPOINT),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_flat;

    #[test]
    fn a_loss_is_flat_when_a_window_is_not_below_the_one_before() {
        assert!(!is_flat(&[3.0, 2.0, 1.0, 1.0], 2));
        assert!(is_flat(&[9.0, 1.0, 1.0, 0.5, 1.5], 2));
        assert!(is_flat(&[1.0, 1.0], 1));
        assert!(!is_flat(&[1.0, 1.0, 1.0], 2), "too few to tell");
    }
}
