//! `parallax supervised` and `parallax finetune`: the run of a training on labels, and the printed
//! results.

use super::arguments::{Place, check_classes, notice_absent};
use super::device_choice::open_for;
use super::pretraining::{check_precision, check_steps, reopened};
use crate::augment::ImageStore;
use crate::console::{self, say};
use crate::data::{Dataset, label_fraction};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::evaluate::metrics::Metrics;
use crate::nn::Linear;
use crate::runs::classify::{
    Beginning, ClassificationRequest, run as run_experiment, settings as settings_of,
};
use crate::runs::image_size::check_image_size;
use crate::runs::memory::StepSize;
use crate::runs::result::{ClassificationMetrics, RunResult, TrainingMetrics};
use crate::runs::settings::{ClassifierTraining, Finetune, Supervised};
use crate::runs::spec::RunSpec;
use crate::runs::tuning::TrainedNetwork;
use crate::runs::weights_file::WeightsFile;
use crate::train::data_parallel::{self, at_once};
use crate::train::micro_batch::{self, in_parts};

/// Trains an encoder and a linear layer from scratch.
pub fn supervised(spec: &RunSpec, run: &Supervised, place: &Place) -> Result<()> {
    let encoder = run.encoder.config()?;
    train(spec, &run.training, place, |_| {
        Ok(Beginning::FromScratch(encoder))
    })
}

/// Fine-tunes an encoder and trains a linear layer on it.
pub fn finetune(spec: &RunSpec, run: &Finetune, place: &Place) -> Result<()> {
    let file = WeightsFile::read(&run.pretrained.init)?;
    let file = file.with_normalization(spec.normalization())?;
    train(spec, &run.training, place, |device| {
        Ok(Beginning::Pretrained(Box::new(file.load(device)?)))
    })
}

/// Trains from what `beginning` returns, and prints the results.
fn train(
    spec: &RunSpec,
    training: &ClassifierTraining,
    place: &Place,
    beginning: impl FnOnce(&Device) -> Result<Beginning>,
) -> Result<()> {
    let (command, every) = (spec.command(), &training.every);
    let (data, seed) = (&spec.common.data, spec.common.seed);
    if let Some(steps) = training.steps {
        check_steps(every, steps)?;
    }
    let group = distributed::current();
    data_parallel::check(training.batch_size, group)?;
    let dataset = data.load(seed)?;
    check_classes(&dataset, command)?;
    let labels = dataset.labels_of(&dataset.train, "training")?;
    let labelled = labelled_part(labels, &dataset, training.labels, seed)?.len();
    data_parallel::check(training.batch_size.min(labelled), group)?;
    let chosen = open_for(&place.device, every.has_f16_factors())?;
    check_precision(every, &chosen.device)?;
    let beginning = beginning(&chosen.device)?;
    let encoder = beginning.encoder();
    let (shape, side) = (encoder.shape()?, dataset.train.height);
    micro_batch::check(training.batch_size, every.micro_batch, &shape, side, 1)?;
    let settings = settings_of(spec, training);
    let size = [dataset.train.width, side];
    let padding = settings.augmentation.padding as usize;
    check_image_size(command, size, &encoder, padding)?;
    notice_absent(&dataset);
    let width = shape.feature_width;
    let batch_size = training.batch_size.min(dataset.train.len());
    let step = StepSize {
        encoder,
        side,
        views_per_image: 1,
        batch_size,
        micro_batch: at_once(batch_size, every.micro_batch, group),
        recompute: every.recompute,
        activations: every.precision,
        optimizer: settings.optimization.optimizer,
        head_parameters: Linear::parameter_count(width, dataset.classes.len()),
        image_bytes: ImageStore::bytes_held(&dataset.train, batch_size),
    };
    let reopen = || reopened(&place.device, every);
    step.check(&chosen.device, &reopen)?;
    let folder = place.start(spec, &dataset, &chosen)?;
    place.tune(&chosen, &folder, || {
        Ok(TrainedNetwork {
            encoder,
            side,
            layers: vec![[width, dataset.classes.len()]],
            activations: every.precision,
            rounds_factors: every.rounds_factors(),
            images: in_parts(step.batch_size, step.micro_batch).unwrap_or(step.batch_size),
        })
    })?;
    let request = ClassificationRequest {
        spec,
        training,
        beginning,
        dataset,
        extent: place.extent,
    };
    if let Some(summary) = run_experiment(&chosen.device, request, folder)? {
        print(&summary);
    }
    Ok(())
}

fn print(summary: &RunResult<ClassificationMetrics>) {
    console::json(summary);
    let metrics = &summary.metrics;
    print_loss(&metrics.training);
    print_metrics(&metrics.test, &summary.data);
    print_speed(&metrics.training, summary.total_seconds);
}

/// Prints the losses of a training.
pub fn print_loss(training: &TrainingMetrics) {
    say!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        training.final_loss,
        training.first_loss,
        training.chance_loss
    );
}

/// Prints the speed and the memory of a training, whose run took `total_seconds`.
pub fn print_speed(training: &TrainingMetrics, total_seconds: f64) {
    say!(
        "speed   {:.1} images/s, {:.0} s of training, {total_seconds:.0} s in all, peak {} MiB",
        training.images_per_second,
        training.seconds,
        training.peak_bytes >> 20
    );
}

/// Prints the metrics of an evaluation on labels.
pub fn print_metrics(metrics: &Metrics, dataset: &str) {
    let auc = if metrics.auc_ovo.is_nan() {
        "AUC not defined for one class".to_string()
    } else {
        format!(
            "AUC {:.4} (one-vs-one), {:.4} (one-vs-rest)",
            metrics.auc_ovo, metrics.auc_ovr
        )
    };
    say!(
        "test images of {dataset}: top-1 {:.1} %, top-2 {:.1} %, top-3 {:.1} %, {auc}, loss {:.4}",
        100.0 * metrics.top1,
        100.0 * metrics.top2,
        100.0 * metrics.top3,
        metrics.loss
    );
}

/// The images of the part `fraction` of the labels, the value of `--labels`.
pub fn labelled_part(
    labels: &[u32],
    dataset: &Dataset,
    fraction: f64,
    seed: u64,
) -> Result<Vec<u32>> {
    label_fraction(labels, &dataset.classes, fraction, seed)
        .map_err(|error| Error::usage(format!("--labels {fraction}: {error}")))
}
