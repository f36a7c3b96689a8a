//! A supervised run, from scratch or from a pretrained encoder, from its request to its summary.

use std::time::{Duration, Instant};

use super::folder::RunFolder;
use super::result::{ClassificationSummary, Start, final_mean};
use super::spec::{DataConfig, RunConfig, TrainingConfig, Versions};
use super::training::{Plan, remove_checkpoints, synchronized, train};
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, Origin, WeightsRecord, pack};
use crate::autograd::PassOptions;
use crate::data::{DataKind, Dataset, label_fraction};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::evaluate::features::logits;
use crate::evaluate::metrics::{Metrics, check_labels};
use crate::nn::weights::digest;
use crate::nn::{Linear, Module, ResNet, ResNetConfig};
use crate::objectives::Protocol;
use crate::objectives::classifier::{Classifier, ClassifierSettings};
use crate::tensor::DType;
use crate::train::Trainer;
use crate::train::micro_batch::in_parts;

/// How long a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Passes over the labelled images, each without its last partial batch.
    Epochs(u64),
    Steps(u64),
}

/// Where the encoder comes from.
pub enum Beginning {
    FromScratch(ResNetConfig),
    Pretrained(Box<Loaded>),
}

impl Beginning {
    pub fn encoder(&self) -> ResNetConfig {
        match self {
            Beginning::FromScratch(config) => *config,
            Beginning::Pretrained(loaded) => loaded.origin.encoder,
        }
    }

    /// The command that asks for it.
    pub fn command(&self) -> &'static str {
        match self {
            Beginning::FromScratch(_) => "supervised",
            Beginning::Pretrained(..) => "finetune",
        }
    }
}

/// What a run is asked to do.
pub struct ClassificationRequest {
    pub protocol: Protocol,
    pub beginning: Beginning,
    pub settings: ClassifierSettings,
    pub length: Length,
    /// The part of the labels that is used, the same of each class.
    pub labels: f64,
    pub save_every: Option<u64>,
    /// Number of steps over which the mean loss is compared with that of the same number of steps
    /// before. The training ends if it is not lower.
    pub stop_when_flat: Option<u64>,
    pub checkpoint_every: Duration,
    /// Whether the backward pass recomputes blocks.
    pub recompute: bool,
    /// How the network's activations are stored while it is trained; the measurement is in f32.
    pub precision: DType,
    /// Whether the first steps are measured.
    pub profile: bool,
    pub data: DataKind,
    pub dataset: Dataset,
}

/// Trains, evaluates on the held-out images, and writes all results into `folder`. An interrupted
/// run is resumed from its checkpoint. If the run has ended, its summary is read instead.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the parts: no labels, a fraction
/// that leaves a class empty, a loss that is not finite.
pub fn run(
    device: &Device,
    request: ClassificationRequest,
    mut folder: RunFolder,
) -> Result<ClassificationSummary> {
    let started = Instant::now();
    let ClassificationRequest {
        protocol,
        beginning,
        mut settings,
        length,
        labels,
        save_every,
        stop_when_flat,
        checkpoint_every,
        recompute,
        precision,
        profile,
        data,
        dataset,
    } = request;
    let command = beginning.command();
    let classes = dataset.classes.len();
    let train_labels = dataset.labels_of(&dataset.train, "training")?;
    let test_labels = dataset.labels_of(&dataset.test, "test")?;
    check_labels(test_labels, classes)?;
    let members = label_fraction(train_labels, &dataset.classes, labels, settings.seed)?;
    let labelled_images = members.len();
    settings.batch_size = settings.batch_size.min(labelled_images);
    settings.micro_batch = settings
        .micro_batch
        .map(|images| images.min(labelled_images));
    let (encoder, network, start, weights) = match beginning {
        Beginning::FromScratch(network) => {
            let encoder = ResNet::new(&network, settings.seed, device)?;
            (encoder, network, None, WeightsRecord::default())
        }
        Beginning::Pretrained(loaded) => {
            let start = Start::new(&loaded);
            (
                loaded.encoder,
                loaded.origin.encoder,
                Some(start),
                loaded.record,
            )
        }
    };
    let kept_random = weights.kept_random.clone();
    let objective = Classifier::new(
        settings.clone(),
        encoder.shape(),
        &dataset.train,
        members,
        device,
    )?;
    let width = encoder.feature_width();
    let head = Linear::new("fc", width, classes, settings.seed, device)?;
    let per_epoch = objective.steps_per_epoch();
    let steps = match length {
        Length::Steps(steps) => steps,
        Length::Epochs(epochs) => epochs.checked_mul(per_epoch).ok_or_else(|| {
            Error::usage(format!("{epochs} epochs of {per_epoch} steps are too many"))
        })?,
    };
    let config = RunConfig {
        command: command.to_string(),
        protocol: protocol.to_string(),
        init: start
            .as_ref()
            .map_or("random".to_string(), |start| start.file.clone()),
        weights,
        knn: None,
        seed: settings.seed,
        device: device.name(),
        classes: dataset.classes.clone(),
        resolution: None,
        variants: device.variants(),
        encoder: network.into(),
        training: Some(TrainingConfig {
            micro_batch: settings.micro_batch,
            precision: precision.to_string(),
            labelled_images: Some(labelled_images),
            stop_when_flat,
            frozen_after_first_epoch: Some(settings.frozen_after_first_epoch),
            ..TrainingConfig::new(settings.batch_size, steps, &settings.optimization)
        }),
        attack: None,
        data: DataConfig::new(data, &dataset),
        augmentation: Some((&settings.augmentation).into()),
        versions: Versions::current(),
    };
    folder.write_config(&config.to_toml()?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    let plan = Plan {
        steps,
        images_per_step: settings.batch_size,
        chance_loss: (classes as f64).ln(),
        save_every,
        stop_when_flat,
        checkpoint_every,
    };
    let origin = |step| Origin {
        encoder: network,
        command: command.to_string(),
        protocol: protocol.to_string(),
        data: dataset.name.clone(),
        seed: settings.seed,
        step,
        batch_size: settings.batch_size,
        classes: Some(classes),
        class_names: dataset.classes.clone(),
        label_fraction: Some(labels),
        pretrained_by: start.as_ref().map(|start| start.command.clone()),
    };
    let options = PassOptions {
        recompute,
        activations: precision,
        synchronized: synchronized(protocol),
        ..PassOptions::default()
    };
    let mut trainer =
        Trainer::new((encoder, head), settings.optimization, objective)?.with_options(options)?;
    if let Some(images) = in_parts(settings.batch_size, settings.micro_batch) {
        trainer = trainer.with_micro_batch(images);
    }
    if distributed::current().size() > 1 {
        trainer = trainer.with_group(distributed::current());
    }
    let save = |(encoder, head): &(ResNet, Linear), step| pack(encoder, Some(head), &origin(step));
    let trained = train(device, &mut trainer, &plan, &mut folder, save, profile)?;
    let steps = trained.losses.len() as u64;
    let model = trainer.module;
    folder.write("model.safetensors", &save(&model, steps)?)?;
    let key = || digest(&model.state());
    let scores = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let scores = partial.entry("logits".to_string()).or_default();
        logits(device, (&model.0, &model.1), classes, &dataset.test, scores)?;
        Ok(std::mem::take(scores))
    })?;
    let summary = ClassificationSummary {
        command: command.to_string(),
        protocol: protocol.to_string(),
        data: dataset.name.clone(),
        device: device.name(),
        arch: network.arch.to_string(),
        width: network.width,
        seed: settings.seed,
        kept_random,
        start,
        label_fraction: labels,
        labelled_images,
        batch_size: settings.batch_size,
        precision: precision.to_string(),
        epochs: steps as f64 / per_epoch as f64,
        steps,
        chance_loss: plan.chance_loss,
        first_loss: trained.losses.first().copied().unwrap_or(f32::NAN),
        final_loss: trained.losses.last().copied().unwrap_or(f32::NAN),
        final_loss_mean: final_mean(&trained.losses).unwrap_or(f64::NAN),
        metrics: Metrics::from_logits(&scores, test_labels, classes)?.named(&dataset.classes),
        seconds: trained.seconds,
        total_seconds: started.elapsed().as_secs_f64(),
        images_per_second: trained.images_per_second(&plan),
        peak_bytes: trained.peak_bytes,
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    folder.write_summary(&summary)?;
    remove_checkpoints(&folder)?;
    Ok(summary)
}
