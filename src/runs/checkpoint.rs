//! Checkpoints: the state of a training in the folder of its run, written whole and verified by a
//! digest. The one before the newest is kept.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::folder::RunFolder;
use super::warn;
use crate::device::Device;
use crate::device::gpu::variants::VariantTable;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::nn::weights::{load, metadata, save};
use crate::sha256::hex;
use crate::train::{LossScale, Objective, Trainer};

/// The file from which a run is resumed.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The checkpoint before it, from which a run is resumed if the newest one is damaged.
pub const PREVIOUS: &str = "checkpoint-previous.safetensors";
/// The checkpoint's entry with the SHA-256 of the file, in hexadecimal. For the digest, the entry
/// has the value [`NO_DIGEST`].
const DIGEST: &str = "digest";
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The checkpoint's entry with the table of variants in use.
const VARIANTS: &str = "variants";
/// The checkpoint's entry with the peak number of bytes that the device has held.
const PEAK: &str = "peak_bytes";

/// The name of the checkpoint that is kept after `step` steps.
pub fn kept_after(step: u64) -> String {
    format!("checkpoint-step{step}.safetensors")
}

pub(super) fn write<M: Module, O: Objective<M>>(
    device: &Device,
    trainer: &Trainer<M, O>,
    step: u64,
    peak_bytes: u64,
    folder: &RunFolder,
) -> Result<()> {
    let bytes = bytes(device, trainer, step, peak_bytes)?;
    folder.link(CHECKPOINT, PREVIOUS)?;
    folder.write(CHECKPOINT, &bytes)
}

pub(super) fn bytes<M: Module, O: Objective<M>>(
    device: &Device,
    trainer: &Trainer<M, O>,
    step: u64,
    peak_bytes: u64,
) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::from([
        (DIGEST.to_string(), NO_DIGEST.to_string()),
        ("step".to_string(), step.to_string()),
        (PEAK.to_string(), peak_bytes.to_string()),
        (
            "optimizer_steps".to_string(),
            trainer.optimizer_steps().to_string(),
        ),
    ]);
    if let Some(LossScale { scale, good_steps }) = trainer.loss_scale() {
        entries.insert("loss_scale".to_string(), scale.to_string());
        entries.insert("loss_scale_good_steps".to_string(), good_steps.to_string());
    }
    if let Some(table) = device.variants() {
        let text = table.to_toml().map_err(Error::usage)?;
        entries.insert(VARIANTS.to_string(), text);
    }
    let mut bytes = save(&trainer.state(), &entries)?;
    let digest = hex(&Sha256::digest(&bytes));
    replace_digest(&mut bytes, NO_DIGEST, &digest);
    Ok(bytes)
}

/// Replaces the first `old` in the bytes of a checkpoint, which is the value of its entry
/// [`DIGEST`], by `new` of the same length.
fn replace_digest(bytes: &mut [u8], old: &str, new: &str) {
    let mut windows = bytes.windows(old.len());
    if let Some(at) = windows.position(|window| window == old.as_bytes()) {
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
}

/// Loads the newest whole checkpoint of the folder, if there is one. Returns the number of steps
/// that were taken and the peak number of bytes that the device held.
///
/// # Errors
/// `Error::Data` if there are checkpoints and none of them is whole.
// Public for the fuzz target of checkpoints.
#[doc(hidden)]
pub fn restore<M: Module, O: Objective<M>>(
    device: &Device,
    trainer: &mut Trainer<M, O>,
    folder: &RunFolder,
) -> Result<(u64, u64)> {
    let damage = match restore_from(CHECKPOINT, device, trainer, folder) {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => None,
        Err(Error::Data { path, message }) => Some((path, message)),
        Err(error) => return Err(error),
    };
    let previous = match restore_from(PREVIOUS, device, trainer, folder) {
        Err(Error::Data { path, message }) => {
            let (path, message) = damage.unwrap_or((path, message));
            let what = format!("{message}; no checkpoint is whole, so remove them to start over");
            return Err(Error::data(path, what));
        }
        previous => previous?,
    };
    match (previous, damage) {
        (Some(found), damage) => {
            if let Some((path, message)) = damage {
                let (path, step) = (path.display(), found.0);
                warn(&format!(
                    "{path}: {message}; the run resumes from the checkpoint before it, after step {step}"
                ));
            }
            folder.rename(PREVIOUS, CHECKPOINT)?;
            Ok(found)
        }
        (None, Some((path, message))) => {
            let what = format!("{message}; remove the file to start over");
            Err(Error::data(path, what))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// As [`restore`], from one file. Returns `None` if it does not exist. Messages give no advice. If
/// there is an error, no parameter is changed.
fn restore_from<M: Module, O: Objective<M>>(
    name: &str,
    device: &Device,
    trainer: &mut Trainer<M, O>,
    folder: &RunFolder,
) -> Result<Option<(u64, u64)>> {
    let path = folder.path().join(name);
    let Some(mut bytes) = folder.read(name)? else {
        return Ok(None);
    };
    // The advice fits a file of weights.
    let without_advice = |error| match error {
        Error::Data { path, message } => {
            let what = message.split("; ").next().unwrap_or_default();
            Error::data(path, what)
        }
        other => other,
    };
    let entries = metadata(&bytes, &path).map_err(without_advice)?;
    if let Some(digest) = entries.get(DIGEST) {
        let is_digest = digest.len() == NO_DIGEST.len();
        if is_digest {
            replace_digest(&mut bytes, digest, NO_DIGEST);
        }
        if !is_digest || hex(&Sha256::digest(&bytes)) != *digest {
            return Err(Error::data(
                &path,
                "its content does not agree with its digest",
            ));
        }
    }
    let entry = |key: &str| entries.get(key).map(String::as_str).unwrap_or_default();
    let damaged = |key: &str| {
        let word = entry(key);
        Error::data(&path, format!("its metadata gives '{word}' as {key}"))
    };
    let number = |key: &str| entry(key).parse::<u64>().map_err(|_| damaged(key));
    let (step, optimizer_steps) = (number("step")?, number("optimizer_steps")?);
    let peak_bytes = entry(PEAK).parse().unwrap_or(0);
    if trainer.loss_scale().is_some() {
        let scale = entry("loss_scale").parse::<f32>().ok();
        let scale = scale.filter(|scale| scale.is_normal() && *scale > 0.0);
        let good_steps = entry("loss_scale_good_steps").parse().ok();
        trainer.resume_with_loss_scale(LossScale {
            scale: scale.ok_or_else(|| damaged("loss_scale"))?,
            good_steps: good_steps.ok_or_else(|| damaged("loss_scale_good_steps"))?,
        });
    }
    if let (Some(text), Some(now)) = (entries.get(VARIANTS), device.variants())
        && VariantTable::from_toml(text.as_bytes()).as_ref() != Ok(&now)
    {
        warn(&format!(
            "{}: it was written with another table of variants than the run's configuration has, so that bits may differ \
             from here on",
            path.display()
        ));
    }
    load(&bytes, Path::new(&path), &trainer.state()).map_err(without_advice)?;
    trainer.resume_at(u32::try_from(optimizer_steps).unwrap_or(u32::MAX));
    Ok(Some((step, peak_bytes)))
}
