//! A linear evaluation, on the pretraining's data set or another one, from its request to its
//! summary.

use std::time::Instant;

use super::folder::RunFolder;
use super::record::{Facts, TrainingFacts};
use super::result::{AccuracyProtocol, LinearMetrics, RunResult, Start};
use super::spec::RunSpec;
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::Loaded;
use crate::autograd::Tape;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::features::complete_features;
use crate::evaluate::linear::{LinearSettings, train_head, with_frozen};
use crate::evaluate::metrics::{Metrics, check_labels};
use crate::nn::Module;
use crate::nn::weights::digest;
use crate::tensor::{DType, Tensor};

/// A linear evaluation whose files were read and checked.
pub struct LinearRequest<'a> {
    pub spec: &'a RunSpec,
    pub loaded: Loaded,
    pub settings: LinearSettings,
    /// The fraction of the labels that is used, and the images that have them.
    pub labels: f64,
    pub members: Vec<u32>,
    pub dataset: Dataset,
}

/// Trains a linear layer on the frozen encoder's features, measures on the held-out images, and
/// writes everything into `folder`. A stopped evaluation is resumed from the values that it stored.
/// If it has ended, its summary is read instead.
///
/// # Errors
/// `Error::Guard` if the encoder changed; `Error::Stopped` if a stop is requested; otherwise those
/// of the parts.
pub fn run(
    device: &Device,
    request: &LinearRequest<'_>,
    folder: &RunFolder,
) -> Result<RunResult<LinearMetrics>> {
    let started = Instant::now();
    let LinearRequest {
        spec,
        loaded,
        settings,
        dataset,
        ..
    } = request;
    let encoder = &loaded.encoder;
    let classes = dataset.classes.len();
    let test_labels = dataset.labels_of(&dataset.test, "test")?;
    check_labels(test_labels, classes)?;
    let members = &request.members;
    let batch_size = settings.batch_size.min(members.len());
    let steps = settings.steps(members.len());
    let facts = Facts {
        training: Some(TrainingFacts {
            precision: Some(DType::F32.to_string()),
            labelled_images: Some(members.len()),
            resolution: Some(settings.resolution),
            ..TrainingFacts::new(batch_size, steps, &settings.optimization)
        }),
        augmentation: settings.augmentation.as_ref().map(Into::into),
        ..Facts::of_loaded(device, dataset, loaded)
    };
    folder.write_config(&facts.to_toml(spec)?)?;
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
    let normalization = encoder.normalization();
    let protocol = AccuracyProtocol::offline("linear layer", settings.resolution, normalization)
        .on(Some(members.len()), dataset.test.len());
    let metrics = LinearMetrics {
        start: Start::new(loaded),
        encoder_digest: digest(&encoder.state())?,
        label_fraction: request.labels,
        labelled_images: members.len(),
        resolution: settings.resolution,
        epochs: settings.epochs,
        final_loss,
        test: Metrics::from_logits(&logits, test_labels, classes)?.named(&dataset.classes),
    };
    let summary = RunResult::new(spec, facts, started, [("metrics", protocol)], metrics);
    folder.write_summary(&summary)?;
    Ok(summary)
}
