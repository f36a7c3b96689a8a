//! A supervised run, from scratch or from a pretrained encoder, from its request to its summary.

use std::time::{Duration, Instant};

use super::folder::RunFolder;
use super::follow::Follow;
use super::pictures::Views;
use super::record::{Facts, TrainingFacts};
use super::result::{AccuracyProtocol, ClassificationMetrics, RunResult, Start, TrainingMetrics};
use super::settings::ClassifierTraining;
use super::spec::RunSpec;
use super::training::{Extent, Plan, divided, pass_options, train};
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, Origin, pack};
use crate::augment::PaddedCropAugmentation;
use crate::data::{Dataset, label_fraction};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::features::logits;
use crate::evaluate::metrics::{Metrics, check_labels};
use crate::nn::weights::digest;
use crate::nn::{Linear, Module, ResNet, ResNetConfig};
use crate::objectives::Protocol;
use crate::objectives::classifier::{Classifier, ClassifierSettings};
use crate::optim::{Optimization, OptimizerOptions};
use crate::train::Trainer;

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
}

/// A training on labels whose files were read and checked.
pub struct ClassificationRequest<'a> {
    pub spec: &'a RunSpec,
    /// The settings of `spec`'s training.
    pub training: &'a ClassifierTraining,
    pub beginning: Beginning,
    pub dataset: Dataset,
    /// How much of the run is made.
    pub extent: Extent,
}

/// The objective's settings of a run, for `training` as it is used.
pub fn settings(spec: &RunSpec, training: &ClassifierTraining) -> ClassifierSettings {
    ClassifierSettings {
        batch_size: training.batch_size,
        micro_batch: training.every.micro_batch,
        optimization: Optimization {
            optimizer: training
                .optimization
                .rule(OptimizerOptions::nesterov(training.weight_decay as f32)),
            learning_rate: training.learning_rate,
            schedule: spec.common.protocol.schedule(),
        },
        augmentation: PaddedCropAugmentation::default(),
        normalization: spec.normalization().unwrap_or_default(),
        frozen_after_first_epoch: spec.common.protocol == Protocol::Paper,
        seed: spec.common.seed,
    }
}

/// Trains, evaluates on the held-out images, and writes all results into `folder`. An interrupted
/// run is resumed from its checkpoint. If the run has ended, its summary is read instead. Without
/// an evaluation, there is no summary.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the parts: no labels, a fraction
/// that leaves a class empty, a loss that is not finite.
pub fn run(
    device: &Device,
    request: ClassificationRequest<'_>,
    mut folder: RunFolder,
) -> Result<Option<RunResult<ClassificationMetrics>>> {
    let started = Instant::now();
    let ClassificationRequest {
        spec,
        training: asked,
        beginning,
        dataset,
        extent,
    } = request;
    let (command, protocol) = (spec.command(), spec.common.protocol);
    let seed = spec.common.seed;
    let classes = dataset.classes.len();
    let train_labels = dataset.labels_of(&dataset.train, "training")?;
    let test_labels = dataset.labels_of(&dataset.test, "test")?;
    check_labels(test_labels, classes)?;
    let members = label_fraction(train_labels, &dataset.classes, asked.labels, seed)?;
    let labelled_images = members.len();
    // The settings in use, which are recorded.
    let mut training = asked.clone();
    let every = &mut training.every;
    training.batch_size = training.batch_size.min(labelled_images);
    every.micro_batch = every.micro_batch.map(|images| images.min(labelled_images));
    let mut settings = settings(spec, &training);
    let (encoder, network, facts, start) = match beginning {
        Beginning::FromScratch(network) => {
            let encoder =
                ResNet::new(&network, seed, device)?.with_normalization(settings.normalization);
            (
                encoder,
                network,
                Facts::new(device, &dataset, network),
                None,
            )
        }
        Beginning::Pretrained(loaded) => {
            let start = Some(Start::new(&loaded));
            let facts = Facts::of_loaded(device, &dataset, &loaded);
            (loaded.encoder, loaded.origin.encoder, facts, start)
        }
    };
    // A pretrained encoder is trained on images as it was evaluated on.
    settings.normalization = encoder.normalization();
    let objective = Classifier::new(
        settings.clone(),
        encoder.shape(),
        &dataset.train,
        members,
        device,
    )?;
    let width = encoder.feature_width();
    let head = Linear::new("fc", width, classes, seed, device)?;
    let per_epoch = objective.steps_per_epoch();
    let steps = match (training.steps, training.epochs) {
        (Some(steps), _) => steps,
        (None, epochs) => {
            let epochs = epochs.unwrap_or_default();
            epochs.checked_mul(per_epoch).ok_or_else(|| {
                Error::usage(format!("{epochs} epochs of {per_epoch} steps are too many"))
            })?
        }
    };
    (training.steps, training.epochs) = (Some(steps), None);
    let default = settings.optimization.schedule;
    settings.optimization.schedule = training.optimization.schedule(default, steps)?;
    let facts = Facts {
        training: Some(TrainingFacts {
            labelled_images: Some(labelled_images),
            frozen_after_first_epoch: Some(settings.frozen_after_first_epoch),
            ..TrainingFacts::new(settings.batch_size, steps, &settings.optimization)
        }),
        augmentation: Some((&settings.augmentation).into()),
        ..facts
    };
    folder.write_config(&facts.to_toml(&spec.with_training(&training))?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(Some(summary));
    }
    let plan = Plan {
        steps: extent.steps(steps),
        images_per_step: settings.batch_size,
        chance_loss: (classes as f64).ln(),
        save_every: training.every.save_every,
        keep_checkpoints: training.every.keep_checkpoints,
        stop_when_flat: training.stop_when_flat,
        checkpoint_every: Duration::from_secs(training.every.checkpoint_every),
    };
    let origin = |step| Origin {
        seed,
        step,
        batch_size: settings.batch_size,
        classes: Some(classes),
        class_names: dataset.classes.clone(),
        label_fraction: Some(training.labels),
        pretrained_by: start.as_ref().map(|start| start.command.clone()),
        normalization: settings.normalization,
        ..Origin::new(network, command, protocol.to_string(), dataset.name.clone())
    };
    let options = pass_options(spec.common.protocol, &training.every);
    let trainer =
        Trainer::new((encoder, head), settings.optimization, objective)?.with_options(options)?;
    let mut trainer = divided(trainer, settings.batch_size, settings.micro_batch);
    let save = |(encoder, head): &(ResNet, Linear), step| pack(encoder, Some(head), &origin(step));
    let profile = training.every.profile;
    let mut follow = Follow::new(
        device,
        |(encoder, _): &(ResNet, Linear)| encoder,
        (&dataset, seed),
        Views::Crops(settings.augmentation),
        training.every.tensorboard,
    )?;
    let trained = train(
        device,
        &mut trainer,
        &plan,
        &mut folder,
        save,
        &mut follow,
        profile,
    )?;
    let steps = trained.losses.len() as u64;
    let model = trainer.module;
    folder.write("model.safetensors", &save(&model, steps)?)?;
    if let Extent::Steps(_) = extent {
        return Ok(None);
    }
    let key = || digest(&model.state());
    let scores = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let scores = partial.entry("logits".to_string()).or_default();
        logits(device, (&model.0, &model.1), classes, &dataset.test, scores)?;
        Ok(std::mem::take(scores))
    })?;
    let side = dataset.test.height;
    let evaluation = AccuracyProtocol::offline("classifier", side, settings.normalization)
        .on(Some(labelled_images), dataset.test.len());
    let metrics = ClassificationMetrics {
        start,
        label_fraction: training.labels,
        labelled_images,
        epochs: steps as f64 / per_epoch as f64,
        training: TrainingMetrics::new(&plan, &trained, training.every.precision_label()),
        test: Metrics::from_logits(&scores, test_labels, classes)?.named(&dataset.classes),
    };
    let summary = RunResult::new(spec, facts, started, [("metrics", evaluation)], metrics);
    folder.write_summary(&summary)?;
    extent.remove_checkpoints(&folder)?;
    let results = [("top1", Some(summary.metrics.test.top1))];
    if extent == Extent::Whole {
        follow.finish(&folder, &model, steps, &results);
    }
    Ok(Some(summary))
}
