//! A nearest-neighbour evaluation as a run, from its request to its summary.

use std::time::Instant;

use super::folder::RunFolder;
use super::result::KnnSummary;
use super::spec::{DataConfig, KnnConfig, RunConfig, Versions};
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, state};
use crate::data::{DataKind, Dataset};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::knn::{Vote, neighbour_accuracy};
use crate::nn::weights::digest;
use crate::objectives::Protocol;

/// Settings of a run.
pub struct KnnRequest {
    /// The encoder.
    pub loaded: Loaded,
    pub vote: Vote,
    /// Side in pixels of the images that the encoder sees; `None` means their own size.
    pub resolution: Option<usize>,
    pub seed: u64,
    pub data: DataKind,
    pub dataset: Dataset,
}

/// Evaluates the encoder and writes the summary into `folder`. A stopped run is resumed from the
/// values that it stored. If the run has ended, its summary is read instead.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the evaluation and of the files.
pub fn run(device: &Device, request: &KnnRequest, folder: &RunFolder) -> Result<KnnSummary> {
    let started = Instant::now();
    let KnnRequest {
        loaded, dataset, ..
    } = request;
    let config = RunConfig {
        command: "knn".to_string(),
        protocol: Protocol::Sound.to_string(),
        init: loaded.source.clone(),
        weights: loaded.record.clone(),
        knn: (request.vote != Vote::default()).then_some(KnnConfig {
            k: request.vote.neighbours(dataset)?,
            temperature: request.vote.temperature,
        }),
        seed: request.seed,
        device: device.name(),
        classes: dataset.classes.clone(),
        variants: device.variants(),
        encoder: loaded.origin.encoder.into(),
        training: None,
        resolution: request.resolution,
        attack: None,
        data: DataConfig::new(request.data, dataset),
        augmentation: None,
        versions: Versions::current(),
    };
    folder.write_config(&config.to_toml()?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    folder.keep();
    let key = || digest(&state(&loaded.encoder, None));
    let found = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let resolution = request.resolution.unwrap_or(dataset.train.height);
        let (data, partial) = ((dataset, resolution), (partial, "knn"));
        neighbour_accuracy(device, &loaded.encoder, data, request.vote, partial)
    })?;
    let summary = KnnSummary {
        command: config.command,
        encoder: config.init,
        kept_random: loaded.record.kept_random.clone(),
        data: dataset.name.clone(),
        device: config.device,
        seed: request.seed,
        resolution: request.resolution,
        classes: dataset.classes.clone(),
        absent_classes: dataset.absent_classes(),
        knn_k: found.k,
        knn_temperature: request.vote.temperature,
        knn_top1: found.top1,
        total_seconds: started.elapsed().as_secs_f64(),
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    folder.write_summary(&summary)?;
    Ok(summary)
}
