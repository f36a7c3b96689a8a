//! `parallax linear`: linear evaluation of an encoder.

use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::{
    DataArguments, NetworkArguments, RunArguments, arch, check_classes, fraction, notice_absent,
    positive, whole,
};
use super::classification::{labelled_part, print_metrics};
use super::device_choice::open;
use crate::augment::PaddedCropAugmentation;
use crate::console::{self, say};
use crate::error::{Error, Result};
use crate::evaluate::linear::LinearSettings;
use crate::nn::{Arch, ResNetConfig};
use crate::optim::{Optimization, OptimizerOptions, Schedule};
use crate::runs::image_size::check_image_size;
use crate::runs::linear::{LinearRequest, run as run_experiment};
use crate::runs::weights_file::{WeightsFile, untrained};

/// Train a linear layer on the features of a frozen encoder and evaluate it on the test images
///
/// By default the features are computed once and the layer is trained by Adam (1e-3) for 10 epochs
/// in batches of 128.
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE", required_unless_present = "untrained")]
    encoder: Option<PathBuf>,

    /// Evaluate a network with random weights instead: the baseline for trained encoders. Its
    /// running statistics are estimated on the training images
    #[arg(long, conflicts_with = "encoder")]
    untrained: bool,

    /// The network of --untrained [default: resnet18]
    #[arg(long, value_name = "resnet18|resnet34|resnet50", conflicts_with = "encoder", value_parser = arch)]
    arch: Option<Arch>,

    /// Multiplies every channel count of --untrained [default: 0.25 on shapes, else 1]
    #[arg(long, conflicts_with = "encoder", value_parser = positive)]
    width: Option<f64>,

    #[command(flatten)]
    linear: LinearArguments,
}

/// The encoder of a linear evaluation.
pub enum Encoder<'a> {
    File(&'a Path),
    Untrained(ResNetConfig),
}

/// Arguments of every linear evaluation.
#[derive(Args)]
pub struct LinearArguments {
    #[command(flatten)]
    pub data: DataArguments,

    /// The part of the training labels to use, the same of each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    labels: f64,

    /// adam (1e-3), or sgd: Nesterov momentum 0.9, rate 0.1, down along a cosine
    #[arg(long, value_name = "adam|sgd", default_value = "adam", value_parser = ["adam", "sgd"])]
    optimizer: String,

    /// Passes over the labelled images [default: 10 with adam, 100 with sgd]
    #[arg(long, value_parser = whole::<u64>(1..=100_000))]
    epochs: Option<u64>,

    /// Images a step; all labelled ones where there are fewer
    #[arg(long, default_value = "128", value_parser = whole::<usize>(1..=u64::MAX))]
    batch_size: usize,

    /// Crop and mirror the training images at random; the encoder then sees each image anew in
    /// every epoch
    #[arg(long)]
    augment: bool,

    /// Side in pixels of the images that the encoder sees. The shorter side is resized and the
    /// centre is cropped [default: the images' own size]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<u64>(4..=1024))]
    resolution: Option<u64>,

    #[command(flatten)]
    pub run: RunArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { linear, .. } = arguments;
    let encoder = match &arguments.encoder {
        Some(path) => Encoder::File(path),
        None => {
            let network = NetworkArguments {
                arch: arguments.arch.unwrap_or(Arch::ResNet18),
                width: arguments.width,
            };
            Encoder::Untrained(network.config(linear.data.data)?)
        }
    };
    run_as("linear", &encoder, linear)
}

/// Evaluates `encoder` in a run of the given `command`.
pub fn run_as(command: &str, encoder: &Encoder<'_>, arguments: &LinearArguments) -> Result<()> {
    let LinearArguments { data, run, .. } = arguments;
    run.check_out()?;
    run.stop.listen()?;
    let file = match encoder {
        Encoder::File(path) => Some(WeightsFile::read(path)?),
        Encoder::Untrained(_) => None,
    };
    let mut dataset = data.load(run.seed)?;
    check_classes(&dataset, command)?;
    if let Some(pixels) = arguments.resolution {
        dataset = dataset.at_resolution(pixels as usize);
    }
    let labels = dataset.labels_of(&dataset.train, "training")?;
    let members = labelled_part(labels, &dataset, arguments.labels, run.seed)?;
    let own = dataset.train.height;
    if let Some(pixels) = arguments
        .resolution
        .filter(|&pixels| arguments.augment && pixels != own as u64)
    {
        return Err(Error::usage(format!(
            "--augment works at the images' own resolution of {own} pixels, not at --resolution {pixels}; leave one of \
             the two out"
        )));
    }
    let chosen = open(&run.device)?;
    let loaded = match (file, encoder) {
        (Some(file), _) => file.load(&chosen.device)?,
        (None, Encoder::Untrained(config)) => {
            let protocol = run.protocol.to_string();
            untrained(&chosen.device, config, protocol, &dataset, run.seed)?
        }
        (None, Encoder::File(_)) => unreachable!("the file was read"),
    };
    if command == "transfer" && loaded.origin.data == dataset.name {
        return Err(Error::usage(format!(
            "{} was pretrained on {} itself; transfer wants another data set, linear this one",
            loaded.source, dataset.name
        )));
    }
    let augmentation = arguments.augment.then(PaddedCropAugmentation::default);
    let size = match arguments.resolution {
        Some(pixels) => [pixels as usize; 2],
        None => [dataset.test.width, dataset.test.height],
    };
    let padding = augmentation.map_or(0, |crops| crops.padding as usize);
    check_image_size(command, size, &loaded.origin.encoder, padding)?;
    notice_absent(&dataset);
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
            schedule: Schedule::constant(),
        }
    };
    let mut settings = LinearSettings {
        epochs,
        batch_size: arguments.batch_size,
        optimization,
        augmentation,
        resolution: match arguments.resolution {
            Some(pixels) => pixels as usize,
            None => dataset.test.height,
        },
        seed: run.seed,
    };
    if !is_adam {
        settings.optimization.schedule = Schedule::cosine(settings.steps(members.len()));
    }
    let name = dataset.name.clone();
    let request = LinearRequest {
        command: command.to_string(),
        protocol: run.protocol,
        loaded,
        settings,
        labels: arguments.labels,
        members,
        data: data.data,
        dataset,
    };
    let summary = run_experiment(&chosen.device, &request, &folder)?;
    console::json(&summary);
    say!(
        "linear layer trained on {} images, loss {:.4} in the last epoch, {:.0} s in all",
        summary.labelled_images,
        summary.final_loss,
        summary.total_seconds
    );
    print_metrics(&summary.metrics, &name);
    Ok(())
}
