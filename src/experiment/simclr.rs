//! A SimCLR run from its request to its summary.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use super::config::{AugmentationConfig, DataConfig, SimClrConfig, Versions};
use super::progress::Progress;
use super::run_folder::{RunFolder, StepMetrics};
use super::summary::{SimClrSummary, chance_loss, final_mean};
use crate::data::{Dataset, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::{features, knn};
use crate::nn::state::{Matching, load, save};
use crate::nn::{ResNet, Stem};
use crate::optim::Schedule;
use crate::pretext::Protocol;
use crate::pretext::simclr::{PendingStep, SimClr, SimClrSettings};

/// Steps that may be under way before the oldest one's loss is waited for.
const STEPS_AHEAD: usize = 2;

/// What a run is asked to do.
pub struct SimClrRequest {
    pub protocol: Protocol,
    pub settings: SimClrSettings,
    pub arch: String,
    pub steps: u64,
    /// A safetensors file of an encoder to start from.
    pub init: Option<PathBuf>,
    pub dataset: Dataset,
}

/// Pretrains, judges, and writes everything into `folder`.
///
/// # Errors
/// As the parts: a batch that does not fit the data, a loss that is not finite, a file that cannot be written.
pub fn run(
    device: &Device,
    request: SimClrRequest,
    mut folder: RunFolder,
) -> Result<SimClrSummary> {
    let started = Instant::now();
    let SimClrRequest {
        settings, dataset, ..
    } = &request;
    let mut training = SimClr::new(device, settings.clone(), dataset.pretraining())?;
    if let Some(path) = &request.init {
        initialize(device, &training.encoder, path)?;
    }
    folder.write("config.toml", config(device, &request)?.as_bytes())?;

    let chance = chance_loss(settings.batch_size);
    let progress = Progress::new(request.steps, settings.batch_size, chance);
    let training_started = Instant::now();
    let mut losses = Vec::new();
    let mut pending = VecDeque::new();
    let mut finish = |training: &mut SimClr, step: PendingStep| -> Result<()> {
        let (number, learning_rate) = (step.step + 1, step.learning_rate);
        let loss = training.finish(step)?;
        losses.push(loss);
        progress.step(number, loss);
        folder.append(&StepMetrics {
            step: number,
            loss,
            learning_rate,
            seconds: training_started.elapsed().as_secs_f64(),
        })
    };
    for step in 0..request.steps {
        pending.push_back(training.step(step)?);
        if pending.len() > STEPS_AHEAD
            && let Some(oldest) = pending.pop_front()
        {
            finish(&mut training, oldest)?;
        }
    }
    for step in pending {
        finish(&mut training, step)?;
    }
    let seconds = training_started.elapsed().as_secs_f64();
    let peak_bytes = device.memory().peak;
    progress.finish();

    let mut state = training.encoder.parameters();
    state.extend(training.encoder.buffers());
    let metadata = BTreeMap::from([
        ("arch".to_string(), request.arch.clone()),
        ("width".to_string(), settings.encoder.width.to_string()),
        ("protocol".to_string(), request.protocol.to_string()),
    ]);
    folder.write("encoder.safetensors", &save(device, &state, &metadata)?)?;

    println!("judging the encoder by its nearest neighbours, then the untrained one");
    let (k, knn_top1) = neighbour_accuracy(device, &training.encoder, dataset)?;
    let untrained = ResNet::new(device, &settings.encoder, settings.seed)?;
    if let Some(path) = &request.init {
        initialize(device, &untrained, path)?;
    } else {
        features::set_running_statistics(device, &untrained, &dataset.train)?;
    }
    let (_, knn_top1_untrained) = neighbour_accuracy(device, &untrained, dataset)?;

    let summary = SimClrSummary {
        command: "simclr".to_string(),
        protocol: protocol_label(&request),
        data: dataset.name.clone(),
        device: device.name(),
        arch: request.arch.clone(),
        width: settings.encoder.width,
        seed: settings.seed,
        batch_size: settings.batch_size,
        steps: request.steps,
        chance_loss: chance,
        first_loss: losses.first().copied().unwrap_or(f32::NAN),
        final_loss: losses.last().copied().unwrap_or(f32::NAN),
        final_loss_mean: final_mean(&losses).unwrap_or(f64::NAN),
        knn_k: k,
        knn_top1,
        knn_top1_untrained,
        seconds,
        total_seconds: started.elapsed().as_secs_f64(),
        images_per_second: (request.steps * settings.batch_size as u64) as f64 / seconds,
        peak_bytes,
        peak_bytes_total: device.memory().peak,
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|e| Error::usage(format!("the summary cannot be written as JSON: {e}")))?;
    folder.write("summary.json", text.as_bytes())?;
    Ok(summary)
}

/// The protocol as results name it.
fn protocol_label(request: &SimClrRequest) -> String {
    match (request.protocol, &request.init) {
        (Protocol::Paper, None) => "paper protocol, random start".to_string(),
        (protocol, _) => protocol.to_string(),
    }
}

fn initialize(device: &Device, encoder: &ResNet, path: &PathBuf) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let mut state = encoder.parameters();
    state.extend(encoder.buffers());
    load(device, &bytes, path, &state, Matching::Initialize)?;
    Ok(())
}

/// k, and the part of the test images whose class their nearest training images vote for.
fn neighbour_accuracy(
    device: &Device,
    encoder: &ResNet,
    dataset: &Dataset,
) -> Result<(usize, f64)> {
    let labels = |split: &Split, name: &str| {
        split.labels.clone().ok_or_else(|| {
            Error::usage(format!(
                "the {name} images of {} have no labels",
                dataset.name
            ))
        })
    };
    let bank_labels = labels(&dataset.train, "training")?;
    let test_labels = labels(&dataset.test, "test")?;
    let bank = features::unit_features(device, encoder, &dataset.train)?;
    let queries = features::unit_features(device, encoder, &dataset.test)?;
    let k = knn::neighbours(bank_labels.len());
    let classes = dataset.classes.len();
    let found = knn::classify(device, &bank, &bank_labels, classes, &queries, k)?;
    Ok((k, knn::accuracy(&found, &test_labels)))
}

fn config(device: &Device, request: &SimClrRequest) -> Result<String> {
    let SimClrRequest {
        settings, dataset, ..
    } = request;
    let augmentation = &settings.augmentation;
    let jitter = &augmentation.jitter;
    let config = SimClrConfig {
        command: "simclr".to_string(),
        protocol: protocol_label(request),
        init: match &request.init {
            Some(path) => path.display().to_string(),
            None => "random".to_string(),
        },
        seed: settings.seed,
        device: device.name(),
        arch: request.arch.clone(),
        width: settings.encoder.width,
        stem_padding: match settings.encoder.stem {
            Stem::Cifar { padding } => padding,
            Stem::ImageNet => 3,
        },
        separate_passes: settings.separate_passes,
        batch_size: settings.batch_size,
        steps: request.steps,
        learning_rate: settings.learning_rate,
        schedule: match settings.schedule {
            Schedule::Constant => "constant".to_string(),
            Schedule::StepDecay { every } => format!("step: a tenth every {every} steps"),
            Schedule::Cosine { warmup, total } => format!("cosine to {total}, warm-up {warmup}"),
        },
        weight_decay: f64::from(settings.weight_decay),
        temperature: f64::from(settings.temperature),
        data: DataConfig {
            name: dataset.name.clone(),
            digest: dataset.digest.clone(),
            pretraining_images: dataset.pretraining().len(),
            train_images: dataset.train.len(),
            test_images: dataset.test.len(),
        },
        augmentation: AugmentationConfig {
            size: augmentation.size,
            jitter: [
                jitter.brightness,
                jitter.contrast,
                jitter.saturation,
                jitter.hue,
            ],
            jitter_probability: jitter.probability,
            grayscale_probability: augmentation.grayscale,
            flip_probability: augmentation.flip,
            normalized: augmentation.normalize.is_some(),
            one_draw_per_batch: augmentation.one_draw_per_batch,
        },
        versions: Versions::current(),
    };
    toml::to_string_pretty(&config)
        .map_err(|e| Error::usage(format!("the configuration cannot be written as TOML: {e}")))
}
