//! A nearest-neighbour evaluation as a run, from its request to its summary.

use std::path::Path;
use std::time::Instant;

use super::folder::RunFolder;
use super::result::KnnSummary;
use super::spec::{DataConfig, RunConfig, Versions};
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, state};
use crate::data::{DataKind, Dataset};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::knn::neighbour_accuracy;
use crate::nn::weights::digest;
use crate::objectives::Protocol;

/// Settings of a run.
pub struct KnnRequest<'a> {
    /// The file of the encoder.
    pub path: &'a Path,
    /// The contents of this file.
    pub loaded: Loaded,
    pub seed: u64,
    pub data: DataKind,
    pub dataset: Dataset,
}

/// Evaluates the encoder and writes the summary into `folder`. A stopped run is resumed from the
/// values that it stored. If the run has ended, its summary is read instead.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the evaluation and of the files.
pub fn run(device: &Device, request: &KnnRequest<'_>, folder: &RunFolder) -> Result<KnnSummary> {
    let started = Instant::now();
    let KnnRequest {
        loaded, dataset, ..
    } = request;
    let config = RunConfig {
        command: "knn".to_string(),
        protocol: Protocol::Sound.to_string(),
        init: request.path.display().to_string(),
        seed: request.seed,
        device: device.name(),
        variants: device.variants(),
        encoder: loaded.origin.encoder.into(),
        training: None,
        attack: None,
        data: DataConfig::new(request.data, dataset),
        augmentation: None,
        versions: Versions::current(),
    };
    folder.write_config(&config.to_toml()?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    let key = || digest(&state(&loaded.encoder, None));
    let found = resumable((folder.path(), UNFINISHED), &key, |partial| {
        neighbour_accuracy(device, &loaded.encoder, dataset, (partial, "knn"))
    })?;
    let summary = KnnSummary {
        command: config.command,
        encoder: config.init,
        data: dataset.name.clone(),
        device: config.device,
        seed: request.seed,
        knn_k: found.k,
        knn_top1: found.top1,
        total_seconds: started.elapsed().as_secs_f64(),
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    folder.write_summary(&summary)?;
    Ok(summary)
}
