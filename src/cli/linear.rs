//! `parallax linear`: linear evaluation of an encoder.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{DataArguments, RunArguments, fraction};
use super::classification::{labelled, print_metrics};
use super::device_choice::open;
use crate::augment::PaddedCropAugmentation;
use crate::data::label_fraction;
use crate::error::{Error, Result};
use crate::evaluate::linear::LinearSettings;
use crate::experiment::encoder_file::read;
use crate::experiment::linear::{LinearRequest, run as run_experiment};
use crate::optim::{Optimization, OptimizerOptions, Schedule};

/// Train a linear layer on the features of a frozen encoder and measure it on the test images
///
/// By default the features are computed once and the layer is trained by Adam (1e-3) for 10 epochs in batches of 128.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    linear: LinearArguments,
}

/// The flags of a linear evaluation.
#[derive(Args)]
pub struct LinearArguments {
    /// The encoder: a file that a training wrote
    #[arg(long, value_name = "FILE")]
    pub encoder: PathBuf,

    #[command(flatten)]
    pub data: DataArguments,

    /// The part of the training labels to use, the same of each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    labels: f64,

    /// adam (1e-3), or sgd: Nesterov momentum 0.9, rate 0.1, down along a cosine
    #[arg(long, value_name = "adam|sgd", default_value = "adam", value_parser = ["adam", "sgd"])]
    optimizer: String,

    /// Passes over the labelled images [default: 10 with adam, 100 with sgd]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: Option<u64>,

    /// Images a step; all labelled ones where there are fewer
    #[arg(long, default_value = "128")]
    batch_size: usize,

    /// Crop and mirror the training images at random; the encoder then sees each image anew in every epoch
    #[arg(long)]
    augment: bool,

    /// Side in pixels to which images are resized [default: the data set's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(4..=1024))]
    resolution: Option<u64>,

    #[command(flatten)]
    pub run: RunArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    run_as("linear", &arguments.linear)
}

/// Runs the evaluation under the name of `command`.
pub fn run_as(command: &str, arguments: &LinearArguments) -> Result<()> {
    let LinearArguments { data, run, .. } = arguments;
    run.stop.listen()?;
    if arguments.batch_size == 0 {
        return Err(Error::usage("--batch-size is 0; use 1 or more"));
    }
    let dataset = data.load(run.seed)?;
    labelled(&dataset)?;
    let labels = dataset.labels_of(&dataset.train, "training")?;
    let members = label_fraction(labels, dataset.classes.len(), arguments.labels, run.seed)?;
    let chosen = open(&run.device)?;
    let loaded = read(&chosen.device, &arguments.encoder)?;
    if command == "transfer" && loaded.origin.data == dataset.name {
        return Err(Error::usage(format!(
            "{} was pretrained on {} itself; transfer wants another data set, linear this one",
            arguments.encoder.display(),
            dataset.name
        )));
    }
    let folder = run.start(command, (data.data, &dataset), &chosen)?;
    let is_adam = arguments.optimizer == "adam";
    let epochs = arguments.epochs.unwrap_or(if is_adam { 10 } else { 100 });
    let optimization = if is_adam {
        Optimization {
            optimizer: OptimizerOptions::adam(0.0),
            learning_rate: 1e-3,
            schedule: run.protocol.schedule(),
        }
    } else {
        Optimization {
            optimizer: OptimizerOptions::nesterov(0.0),
            learning_rate: 0.1,
            schedule: Schedule::Constant,
        }
    };
    let mut settings = LinearSettings {
        epochs,
        batch_size: arguments.batch_size,
        optimization,
        augmentation: arguments.augment.then(PaddedCropAugmentation::default),
        resolution: match arguments.resolution {
            Some(pixels) => pixels as usize,
            None => dataset.test.height,
        },
        seed: run.seed,
    };
    if !is_adam {
        settings.optimization.schedule = Schedule::Cosine {
            warmup: 0,
            total: settings.steps(members.len()),
        };
    }
    let name = dataset.name.clone();
    let request = LinearRequest {
        command: command.to_string(),
        protocol: run.protocol,
        path: arguments.encoder.clone(),
        loaded,
        settings,
        labels: arguments.labels,
        members,
        data: data.data,
        dataset,
    };
    let summary = run_experiment(&chosen.device, &request, &folder)?;
    println!(
        "linear layer trained on {} images, loss {:.4} in the last epoch, {:.0} s in all",
        summary.labelled_images, summary.final_loss, summary.total_seconds
    );
    print_metrics(&summary.metrics, &name);
    Ok(())
}
