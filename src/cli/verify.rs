//! `parallax verify`: repeats steps of a training, and compares the bits.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::SafeTensors;
use serde_json::json;

use super::arguments::Place;
use super::device_choice::DeviceRequest;
use super::run::{is_training, run as train};
use crate::console::{self, note, say};
use crate::error::{Error, Result, listed};
use crate::nn::weights::metadata;
use crate::runs::checkpoint::{self, CHECKPOINT, PREVIOUS};
use crate::runs::folder::{CONFIG, METRICS, StepMetrics};
use crate::runs::reading::{RunRecord, WEIGHTS};
use crate::runs::training::Extent;
use crate::runs::tuning::When;
use crate::runs::values::count;

/// Repeat the last steps of a training from one of its checkpoints, and compare losses and weights
/// bit by bit
///
/// The steps run in a temporary folder; the run folder is only read. The last line is `verify: ok`,
/// or the first difference is an error, and the exit code is 1.
#[derive(Args)]
pub struct Arguments {
    /// The run folder of simclr, rotnet, supervised or finetune
    run: PathBuf,

    /// Minimum number of steps to repeat, counted from the end. If it is the number of all steps,
    /// the repetition starts from the initial weights [default: the steps after the newest
    /// checkpoint before the last step]
    #[arg(long, value_name = "STEPS", value_parser = count::<u64>)]
    steps: Option<u64>,

    /// The device of the run: auto, cpu, gpu, a part of an adapter's name, or a number of the list
    /// that devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,
}

/// A state of a run: the number of steps that led to it, and its file. The initial state has none.
type State = (u64, Option<PathBuf>);

pub fn run(arguments: &Arguments) -> Result<()> {
    let record = RunRecord::read(&arguments.run)?;
    let spec = record.spec()?;
    if !is_training(spec.command()) {
        return Err(Error::usage(format!(
            "{} is a run of {}, which is no training; verify takes a run of simclr, rotnet, supervised or finetune",
            record.path.display(),
            spec.command()
        )));
    }
    let (end, reference) = last_state(&record)?;
    let (start, checkpoint) = start(&record, end, arguments.steps)?;
    let temporary = std::env::temp_dir();
    let folder = tempfile::tempdir().map_err(|e| Error::write(&temporary, e))?;
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(from, &to)
            .map(drop)
            .map_err(|e| Error::write(&to, e))
    };
    copy(&record.path.join(CONFIG), CONFIG)?;
    if let Some(checkpoint) = &checkpoint {
        copy(checkpoint, CHECKPOINT)?;
        copy(&record.path.join(METRICS), METRICS)?;
    }
    note!(
        "verify  steps {} to {end} of {}",
        start + 1,
        record.path.display()
    );
    let place = Place {
        device: arguments.device.clone(),
        out: Some(folder.path().to_path_buf()),
        resume: true,
        tuning: When::Never,
        extent: Extent::Steps(end),
    };
    let in_the_run = |error: Error| match error {
        // The advice fits a run that is resumed.
        Error::Data { path, message } if path.starts_with(folder.path()) => {
            let name = path.file_name().unwrap_or_default();
            let own = checkpoint.clone().filter(|_| name == CHECKPOINT);
            let what = message.split("; ").next().unwrap_or_default();
            Error::data(own.unwrap_or_else(|| record.path.join(name)), what)
        }
        other => other,
    };
    train(&spec, &place).map_err(in_the_run)?;
    let again = RunRecord::read(folder.path())?;
    let found = compare(&record, &again, start..end, &reference);
    let difference = found.as_ref().err().map(ToString::to_string);
    console::json(&json!({
        "run": &record.path,
        "first_step": start + 1,
        "last_step": end,
        "tensors": found.as_ref().ok(),
        "difference": difference,
    }));
    let tensors = found?;
    let file = reference.file_name().unwrap_or_default().to_string_lossy();
    say!(
        "verify: ok, the losses of steps {} to {end} and {tensors} tensors of {file} have the same bits",
        start + 1
    );
    Ok(())
}

/// The last state of a run that its folder has: the number of steps, and the file.
fn last_state(record: &RunRecord) -> Result<(u64, PathBuf)> {
    let checkpoint = record.path.join(CHECKPOINT);
    if checkpoint.is_file() {
        return Ok((step_of(&checkpoint)?, checkpoint));
    }
    let steps = record.metrics.last().map_or(0, |metrics| metrics.step);
    let weights = WEIGHTS.map(|name| record.path.join(name));
    let weights = weights.into_iter().find(|file| file.is_file());
    match weights {
        Some(file) if record.summary.is_some() && steps > 0 => Ok((steps, file)),
        _ => Err(Error::usage(format!(
            "{} has neither a {CHECKPOINT} nor the weights of a training that has ended, so there is nothing to compare \
             with; resume the run first",
            record.path.display()
        ))),
    }
}

/// The newest state from which at least `steps` steps lead to the step `end`.
fn start(record: &RunRecord, end: u64, steps: Option<u64>) -> Result<State> {
    let least = steps.unwrap_or(1);
    let Some(latest) = end.checked_sub(least) else {
        return Err(Error::usage(format!(
            "--steps is {least}, and the last state in {} is that after {end} steps; use {end} or less",
            record.path.display()
        )));
    };
    let mut states: Vec<State> = Vec::new();
    for metrics in &record.metrics {
        let file = record.path.join(checkpoint::kept_after(metrics.step));
        if metrics.step < end && file.is_file() {
            states.push((metrics.step, Some(file)));
        }
    }
    let previous = record.path.join(PREVIOUS);
    if previous.is_file() {
        states.push((step_of(&previous)?, Some(previous)));
    }
    if latest == 0 {
        return Ok((0, None));
    }
    let known = states.iter().map(|(step, _)| step.to_string());
    let known = match known.collect::<Vec<_>>() {
        all if all.is_empty() => "there is none before the last step".to_string(),
        all => format!(
            "those before the last step are of the steps {}",
            listed(all, ", ")
        ),
    };
    let fits = states.into_iter().filter(|(step, _)| *step <= latest);
    fits.max_by_key(|(step, _)| *step).ok_or_else(|| {
        Error::usage(format!(
            "{} has no checkpoint from which the last {least} of {end} steps could be taken again ({known}); \
             --steps {end} takes all steps again from the initial weights, and a training with --save-every and \
             --keep-checkpoints keeps checkpoints",
            record.path.display()
        ))
    })
}

/// The number of steps that led to a checkpoint.
fn step_of(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).map_err(|e| Error::read(path, e))?;
    let entries = metadata(&bytes, path)?;
    let word = entries.get("step").map_or("", String::as_str);
    let damaged = |_| {
        Error::data(
            path,
            format!("its metadata gives '{word}' as step; restore the file"),
        )
    };
    word.parse().map_err(damaged)
}

/// Compares the losses of the steps and the last state, and returns the number of equal tensors.
///
/// # Errors
/// `Error::Guard` that names the first difference.
fn compare(
    record: &RunRecord,
    again: &RunRecord,
    steps: std::ops::Range<u64>,
    reference: &Path,
) -> Result<usize> {
    let loss = |record: &RunRecord, step: u64| -> Option<f32> {
        let is_it = |metrics: &&StepMetrics| metrics.step == step;
        record
            .metrics
            .iter()
            .find(is_it)
            .map(|metrics| metrics.loss)
    };
    for step in steps.start + 1..=steps.end {
        let (theirs, ours) = (loss(record, step), loss(again, step));
        if theirs.map(f32::to_bits) != ours.map(f32::to_bits) {
            let shown =
                |loss: Option<f32>| loss.map_or("none".to_string(), |loss| loss.to_string());
            return Err(Error::Guard(format!(
                "verify: the loss of step {step} is {} in {} and {} now; the device, the program or the images differ \
                 from those of the run, or the file was changed",
                shown(theirs),
                record.path.join(METRICS).display(),
                shown(ours)
            )));
        }
    }
    let ours = again.path.join(reference.file_name().unwrap_or_default());
    let read = |path: &Path| fs::read(path).map_err(|e| Error::read(path, e));
    let (theirs_bytes, ours_bytes) = (read(reference)?, read(&ours)?);
    let theirs = parse(&theirs_bytes, reference)?;
    let found = equal_tensors(&theirs, &parse(&ours_bytes, &ours)?);
    found.map_err(|what| {
        Error::Guard(format!(
            "verify: {}: {what} after step {}; the device, the program or the images differ from those of the run, or \
             the file was changed",
            reference.display(),
            steps.end
        ))
    })
}

fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>> {
    let damaged = |e| Error::data(path, format!("not a safetensors file: {e}; restore it"));
    SafeTensors::deserialize(bytes).map_err(damaged)
}

/// Returns the number of tensors, or in words the first one, by name, that differs.
fn equal_tensors(
    theirs: &SafeTensors<'_>,
    ours: &SafeTensors<'_>,
) -> std::result::Result<usize, String> {
    let mut names: Vec<String> = [theirs, ours]
        .iter()
        .flat_map(|file| file.names())
        .map(ToString::to_string)
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        let (Ok(before), Ok(now)) = (theirs.tensor(name), ours.tensor(name)) else {
            return Err(format!("{name} is in one of the two states only"));
        };
        if before.shape() != now.shape() || before.dtype() != now.dtype() {
            let (before, now) = (before.shape(), now.shape());
            return Err(format!("{name} has the shape {before:?}, and {now:?} now"));
        }
        let [before, now] =
            [before, now].map(|view| bytemuck::pod_collect_to_vec::<u8, f32>(view.data()));
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(i) = before.iter().zip(&now).position(differs) {
            let (before, now) = (before[i], now[i]);
            return Err(format!("{name} has {before} as element {i}, and {now} now"));
        }
    }
    Ok(names.len())
}
