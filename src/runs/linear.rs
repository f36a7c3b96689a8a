//! A linear evaluation, on the pretraining's data set or another one, from its request to its
//! summary.

use std::time::Instant;

use super::folder::RunFolder;
use super::result::{LinearSummary, Start};
use super::spec::{DataConfig, RunConfig, TrainingConfig, Versions};
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::Loaded;
use crate::autograd::Tape;
use crate::data::{DataKind, Dataset};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::features::complete_features;
use crate::evaluate::linear::{LinearSettings, train_head, with_frozen};
use crate::evaluate::metrics::{Metrics, check_labels};
use crate::nn::Module;
use crate::nn::weights::digest;
use crate::objectives::Protocol;
use crate::tensor::Tensor;

/// What a run is asked to do.
pub struct LinearRequest {
    /// `linear` or `transfer`.
    pub command: String,
    pub protocol: Protocol,
    pub loaded: Loaded,
    pub settings: LinearSettings,
    /// The part of the labels that is used, the same of each class, and the images that have them.
    pub labels: f64,
    pub members: Vec<u32>,
    pub data: DataKind,
    pub dataset: Dataset,
}

/// Trains a linear layer on the frozen encoder's features, measures on the held-out images, and
/// writes everything into `folder`. A stopped evaluation is resumed from the values that it stored.
/// If it has ended, its summary is read instead.
///
/// # Errors
/// `Error::Guard` if the encoder changed; `Error::Stopped` if a stop is requested; otherwise those
/// of the parts.
pub fn run(device: &Device, request: &LinearRequest, folder: &RunFolder) -> Result<LinearSummary> {
    let started = Instant::now();
    let LinearRequest {
        loaded,
        settings,
        dataset,
        ..
    } = request;
    let (encoder, network) = (&loaded.encoder, loaded.origin.encoder);
    let classes = dataset.classes.len();
    let test_labels = dataset.labels_of(&dataset.test, "test")?;
    check_labels(test_labels, classes)?;
    let members = &request.members;
    let batch_size = settings.batch_size.min(members.len());
    let config = RunConfig {
        command: request.command.clone(),
        protocol: request.protocol.to_string(),
        init: loaded.source.clone(),
        weights: loaded.record.clone(),
        knn: None,
        seed: settings.seed,
        device: device.name(),
        classes: dataset.classes.clone(),
        resolution: None,
        variants: device.variants(),
        encoder: network.into(),
        training: Some(TrainingConfig {
            labelled_images: Some(members.len()),
            resolution: Some(settings.resolution),
            ..TrainingConfig::new(
                batch_size,
                settings.steps(members.len()),
                &settings.optimization,
            )
        }),
        attack: None,
        data: DataConfig::new(request.data, dataset),
        augmentation: settings.augmentation.as_ref().map(Into::into),
        versions: Versions::current(),
    };
    folder.write_config(&config.to_toml()?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    folder.keep();
    let key = || digest(&encoder.state());
    let (logits, final_loss) = with_frozen(encoder, || {
        resumable((folder.path(), UNFINISHED), &key, |partial| {
            let train = &dataset.train;
            let (head, loss) =
                train_head(device, encoder, train, members, classes, settings, partial)?;
            let x = partial.entry("test features".to_string()).or_default();
            complete_features(device, encoder, &dataset.test, settings.resolution, x)?;
            let x = Tensor::from_slice(x, &[dataset.test.len(), encoder.feature_width()], device)?;
            let tape = Tape::inference(device);
            let logits = head.forward(&tape.constant(&x))?;
            Ok((logits.tensor().to_vec::<f32>()?, loss))
        })
    })?;
    let summary = LinearSummary {
        command: request.command.clone(),
        protocol: request.protocol.to_string(),
        data: dataset.name.clone(),
        device: device.name(),
        arch: network.arch.to_string(),
        width: network.width,
        seed: settings.seed,
        start: Start::new(loaded),
        kept_random: loaded.record.kept_random.clone(),
        encoder_digest: digest(&encoder.state())?,
        label_fraction: request.labels,
        labelled_images: members.len(),
        resolution: settings.resolution,
        epochs: settings.epochs,
        final_loss,
        metrics: Metrics::from_logits(&logits, test_labels, classes)?.named(&dataset.classes),
        total_seconds: started.elapsed().as_secs_f64(),
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    folder.write_summary(&summary)?;
    Ok(summary)
}
