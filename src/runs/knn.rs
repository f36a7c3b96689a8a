//! A nearest-neighbour evaluation as a run, from its request to its summary.

use std::time::Instant;

use super::folder::RunFolder;
use super::record::{Facts, KnnFacts};
use super::result::{AccuracyProtocol, KnnMetrics, RunResult};
use super::settings::Knn;
use super::spec::RunSpec;
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, state};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::knn::{Vote, neighbour_accuracy};
use crate::nn::weights::digest;

/// A nearest-neighbour evaluation whose files were read and checked.
pub struct KnnRequest<'a> {
    pub spec: &'a RunSpec,
    /// The settings of `spec`.
    pub settings: &'a Knn,
    /// The encoder.
    pub loaded: Loaded,
    pub dataset: Dataset,
}

/// Evaluates the encoder and writes the summary into `folder`. A stopped run is resumed from the
/// values that it stored. If the run has ended, its summary is read instead.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the evaluation and of the files.
pub fn run(
    device: &Device,
    request: &KnnRequest<'_>,
    folder: &RunFolder,
) -> Result<RunResult<KnnMetrics>> {
    let started = Instant::now();
    let KnnRequest {
        spec,
        settings,
        loaded,
        dataset,
    } = request;
    let (resolution, vote) = (settings.resolution, Vote::from(settings.knn));
    let facts = Facts {
        knn: (vote != Vote::default()).then_some(KnnFacts {
            k: vote.neighbours(dataset)?,
            temperature: vote.temperature,
        }),
        ..Facts::of_loaded(device, dataset, loaded)
    };
    folder.write_config(&facts.to_toml(spec)?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    folder.keep();
    let key = || digest(&state(&loaded.encoder, None));
    let found = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let resolution = resolution.unwrap_or(dataset.train.height);
        let (data, partial) = ((dataset, resolution), (partial, "knn"));
        neighbour_accuracy(device, &loaded.encoder, data, vote, partial)
    })?;
    let side = resolution.unwrap_or(dataset.train.height);
    let votes = (found.k, vote.temperature);
    let normalization = loaded.encoder.normalization();
    let protocol = AccuracyProtocol::neighbours(dataset, votes, side, normalization);
    let metrics = KnnMetrics {
        encoder: facts.init.clone(),
        resolution,
        classes: dataset.classes.clone(),
        absent_classes: dataset.absent_classes(),
        knn_k: found.k,
        knn_temperature: vote.temperature,
        knn_top1: found.top1,
    };
    let summary = RunResult::new(spec, facts, started, [("knn_top1", protocol)], metrics);
    folder.write_summary(&summary)?;
    Ok(summary)
}
