//! Shared parts of the supervised commands: their arguments, the run, and the printed results.

use clap::Args;

use super::arguments::{
    CheckpointArguments, DataArguments, RunArguments, TuningArguments, check_classes, fraction,
    not_negative, notice_absent, positive, whole,
};
use super::device_choice::open;
use crate::augment::PaddedCropAugmentation;
use crate::console::{self, say};
use crate::data::{Dataset, label_fraction};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::metrics::Metrics;
use crate::nn::{Linear, Normalization};
use crate::objectives::Protocol;
use crate::objectives::classifier::ClassifierSettings;
use crate::optim::{Optimization, OptimizerOptions};
use crate::runs::classify::{Beginning, ClassificationRequest, Length, run as run_experiment};
use crate::runs::image_size::check_image_size;
use crate::runs::memory::StepSize;
use crate::runs::result::ClassificationSummary;
use crate::runs::tuning::TrainedNetwork;
use crate::train::micro_batch::{self, in_parts};

/// How an encoder and a linear layer are trained together.
#[derive(Args)]
pub struct ClassificationArguments {
    #[command(flatten)]
    pub data: DataArguments,

    /// The part of the training labels to use, the same of each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    pub labels: f64,

    /// Images a step; all labelled ones where there are fewer
    #[arg(long, default_value = "64", value_parser = whole::<usize>(1..=u64::MAX))]
    batch_size: usize,

    /// Images that pass the network at a time: the gradients are still those of the whole batch, in
    /// less memory; the statistics of batch norm are each chunk's own [default: the batch size]
    #[arg(long, value_name = "IMAGES", value_parser = whole::<usize>(0..=u64::MAX))]
    micro_batch: Option<usize>,

    /// Passes over the labelled images
    #[arg(long, conflicts_with = "steps", value_parser = whole::<u64>(1..=u64::MAX))]
    epochs: Option<u64>,

    /// Training steps, in place of --epochs
    #[arg(long, value_parser = whole::<u64>(1..=u64::MAX))]
    steps: Option<u64>,

    /// End after any so many steps whose mean loss is not below that of as many before
    #[arg(long, value_name = "STEPS", value_parser = whole::<u64>(1..=u64::MAX))]
    stop_when_flat: Option<u64>,

    /// The learning rate of SGD with Nesterov momentum 0.9 [default: 0.05 times the batch size over
    /// 256]
    #[arg(long, value_parser = positive)]
    learning_rate: Option<f64>,

    /// L2, added to the gradient
    #[arg(long, default_value = "0", value_parser = not_negative)]
    weight_decay: f64,

    #[command(flatten)]
    run: RunArguments,

    #[command(flatten)]
    checkpoints: CheckpointArguments,

    #[command(flatten)]
    tuning: TuningArguments,
}

impl ClassificationArguments {
    /// How long to train, where `epochs` is the command's default.
    fn length(&self, epochs: u64) -> Length {
        match self.steps {
            Some(steps) => Length::Steps(steps),
            None => Length::Epochs(self.epochs.unwrap_or(epochs)),
        }
    }

    /// Fails if the run cannot write to --out, before any work.
    pub fn check_out(&self) -> Result<()> {
        self.run.check_out()
    }

    /// Trains from what `beginning` gives, for `epochs` epochs where the flags say nothing else,
    /// and says what came out. `command` is the name of the command.
    pub fn train(
        &self,
        epochs: u64,
        command: &str,
        beginning: impl FnOnce(&Device) -> Result<Beginning>,
    ) -> Result<()> {
        let (run, checkpoints) = (&self.run, &self.checkpoints);
        run.check_out()?;
        run.stop.listen()?;
        let (length, settings) = (self.length(epochs), self.settings());
        if let Length::Steps(steps) = length {
            checkpoints.check_steps(steps)?;
        }
        let dataset = self.data.load(run.seed)?;
        check_classes(&dataset, command)?;
        let labels = dataset.labels_of(&dataset.train, "training")?;
        labelled_part(labels, &dataset, self.labels, run.seed)?;
        let chosen = open(&run.device)?;
        checkpoints.check_precision(&chosen.device)?;
        let beginning = beginning(&chosen.device)?;
        micro_batch::check(
            self.batch_size,
            self.micro_batch,
            &beginning.encoder().shape()?,
            dataset.train.height,
            1,
        )?;
        let encoder = beginning.encoder();
        let size = [dataset.train.width, dataset.train.height];
        let padding = settings.augmentation.padding as usize;
        check_image_size(command, size, &encoder, padding)?;
        notice_absent(&dataset);
        let width = encoder.shape()?.feature_width;
        let step = StepSize {
            encoder,
            side: dataset.train.height,
            views_per_image: 1,
            batch_size: self.batch_size.min(dataset.train.len()),
            micro_batch: self.micro_batch,
            recompute: checkpoints.recompute,
            activations: checkpoints.precision,
            optimizer: settings.optimization.optimizer,
            head_parameters: Linear::parameter_count(width, dataset.classes.len()),
            image_bytes: dataset.train.images.len(),
        };
        step.check(&chosen.device, &|| open(&run.device).map(|c| c.device))?;
        let folder = run.start(beginning.command(), (self.data.data, &dataset), &chosen)?;
        let images = in_parts(step.batch_size, step.micro_batch).unwrap_or(step.batch_size);
        self.tuning.prepare(&chosen, &folder, || {
            Ok(TrainedNetwork {
                encoder,
                side: step.side,
                layers: vec![[width, dataset.classes.len()]],
                images,
            })
        })?;
        let name = dataset.name.clone();
        let request = ClassificationRequest {
            protocol: run.protocol,
            beginning,
            settings,
            length,
            labels: self.labels,
            save_every: checkpoints.save_every,
            stop_when_flat: self.stop_when_flat,
            checkpoint_every: checkpoints.checkpoint_every(),
            recompute: checkpoints.recompute,
            precision: checkpoints.precision,
            profile: checkpoints.profile,
            data: self.data.data,
            dataset,
        };
        print(&run_experiment(&chosen.device, request, folder)?, &name);
        Ok(())
    }

    /// The settings under the run's protocol.
    fn settings(&self) -> ClassifierSettings {
        ClassifierSettings {
            batch_size: self.batch_size,
            micro_batch: self.micro_batch,
            optimization: Optimization {
                optimizer: OptimizerOptions::nesterov(self.weight_decay as f32),
                learning_rate: self
                    .learning_rate
                    .unwrap_or(0.05 * self.batch_size as f64 / 256.0),
                schedule: self.run.protocol.schedule(),
            },
            augmentation: PaddedCropAugmentation::default(),
            normalization: Normalization::default(),
            frozen_after_first_epoch: self.run.protocol == Protocol::Paper,
            seed: self.run.seed,
        }
    }
}

fn print(summary: &ClassificationSummary, dataset: &str) {
    console::json(summary);
    say!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        summary.final_loss,
        summary.first_loss,
        summary.chance_loss
    );
    print_metrics(&summary.metrics, dataset);
    say!(
        "speed   {:.1} images/s, {:.0} s of training, {:.0} s in all, peak {} MiB",
        summary.images_per_second,
        summary.seconds,
        summary.total_seconds,
        summary.peak_bytes >> 20
    );
}

/// Prints the metrics of an evaluation on labels.
pub fn print_metrics(metrics: &Metrics, dataset: &str) {
    let auc = match metrics.auc_ovo.is_nan() {
        true => "AUC not defined for one class".to_string(),
        false => format!(
            "AUC {:.4} (one-vs-one), {:.4} (one-vs-rest)",
            metrics.auc_ovo, metrics.auc_ovr
        ),
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
