//! `parallax linear` and `parallax transfer`: linear evaluations of an encoder.

use std::path::Path;

use super::arguments::{Place, check_classes, notice_absent};
use super::classification::{labelled_part, print_metrics};
use super::device_choice::open;
use crate::augment::PaddedCropAugmentation;
use crate::console::{self, say};
use crate::error::{Error, Result};
use crate::evaluate::linear::LinearSettings;
use crate::nn::ResNetConfig;
use crate::optim::{Optimization, OptimizerOptions, Schedule};
use crate::runs::image_size::check_image_size;
use crate::runs::linear::{LinearRequest, run as run_experiment};
use crate::runs::settings::{Linear, LinearTraining};
use crate::runs::spec::RunSpec;
use crate::runs::weights_file::{WeightsFile, untrained};

/// The encoder of a linear evaluation.
pub enum Encoder<'a> {
    File(&'a Path),
    Untrained(ResNetConfig),
}

/// Evaluates an encoder on the data set of its pretraining, or a network with random weights.
pub fn linear(spec: &RunSpec, run: &Linear, place: &Place) -> Result<()> {
    let encoder = match (&run.init, run.network()) {
        (Some(path), _) => Encoder::File(path),
        (None, Some(network)) => Encoder::Untrained(network.config()?),
        (None, None) => return Err(Error::usage("there is no encoder; name one with --encoder")),
    };
    evaluate(spec, &run.training, &encoder, place)
}

/// Evaluates `encoder`.
pub fn evaluate(
    spec: &RunSpec,
    training: &LinearTraining,
    encoder: &Encoder<'_>,
    place: &Place,
) -> Result<()> {
    let command = spec.command();
    let (data, seed) = (&spec.common.data, spec.common.seed);
    let file = match encoder {
        Encoder::File(path) => {
            Some(WeightsFile::read(path)?.with_normalization(spec.normalization())?)
        }
        Encoder::Untrained(_) => None,
    };
    let mut dataset = data.load(seed)?;
    check_classes(&dataset, command)?;
    if let Some(pixels) = training.resolution {
        dataset = dataset.at_resolution(pixels)?;
    }
    let labels = dataset.labels_of(&dataset.train, "training")?;
    let members = labelled_part(labels, &dataset, training.labels, seed)?;
    let own = dataset.train.height;
    if let Some(pixels) = training
        .resolution
        .filter(|&pixels| training.augment && pixels != own)
    {
        return Err(Error::usage(format!(
            "--augment works at the images' own resolution of {own} pixels, not at --resolution {pixels}; leave one of \
             the two out"
        )));
    }
    let chosen = open(&place.device)?;
    let loaded = match (file, encoder) {
        (Some(file), _) => file.load(&chosen.device)?,
        (None, Encoder::Untrained(config)) => {
            let protocol = spec.common.protocol.to_string();
            let network = (config, spec.normalization().unwrap_or_default());
            untrained(&chosen.device, network, protocol, &dataset, seed)?
        }
        (None, Encoder::File(_)) => unreachable!("the file was read"),
    };
    if command == "transfer" && loaded.origin.data == dataset.name {
        return Err(Error::usage(format!(
            "{} was pretrained on {} itself; transfer wants another data set, linear this one",
            loaded.source, dataset.name
        )));
    }
    let augmentation = training.augment.then(PaddedCropAugmentation::default);
    let size = match training.resolution {
        Some(pixels) => [pixels; 2],
        None => [dataset.test.width, dataset.test.height],
    };
    let padding = augmentation.map_or(0, |crops| crops.padding as usize);
    check_image_size(command, size, &loaded.origin.encoder, padding)?;
    notice_absent(&dataset);
    let folder = place.start(spec, &dataset, &chosen)?;
    let is_adam = training.is_adam();
    let optimization = if is_adam {
        Optimization {
            optimizer: OptimizerOptions::adam(0.0),
            learning_rate: 1e-3,
            schedule: spec.common.protocol.schedule(),
        }
    } else {
        Optimization {
            optimizer: OptimizerOptions::nesterov(0.0),
            learning_rate: 0.1,
            schedule: Schedule::constant(),
        }
    };
    let mut settings = LinearSettings {
        epochs: training.epochs,
        batch_size: training.batch_size,
        optimization,
        augmentation,
        resolution: training.resolution.unwrap_or(dataset.test.height),
        seed,
    };
    if !is_adam {
        settings.optimization.schedule = Schedule::cosine(settings.steps(members.len()));
    }
    let request = LinearRequest {
        spec,
        loaded,
        settings,
        labels: training.labels,
        members,
        dataset,
    };
    let summary = run_experiment(&chosen.device, &request, &folder)?;
    console::json(&summary);
    say!(
        "linear layer trained on {} images, loss {:.4} in the last epoch, {:.0} s in all",
        summary.metrics.labelled_images,
        summary.metrics.final_loss,
        summary.total_seconds
    );
    print_metrics(&summary.metrics.test, &summary.data);
    Ok(())
}
