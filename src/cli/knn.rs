//! `parallax knn`: nearest-neighbour evaluation of an encoder.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::arguments::{
    DataArguments, StopArguments, check_classes, check_folder, notice_absent, number, open_folder,
    seed, whole,
};
use super::device_choice::{DeviceRequest, open};
use crate::console::{self, say};
use crate::error::{Error, Result};
use crate::evaluate::knn::{Vote, neighbour_accuracy};
use crate::evaluate::partial::Partial;
use crate::runs::folder::RunFolder;
use crate::runs::image_size::check_image_size;
use crate::runs::knn::{KnnRequest, run as run_experiment};
use crate::runs::weights_file::WeightsFile;

/// Evaluate an encoder by the nearest neighbours of the test images among the training images
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// Neighbours that vote [default: a tenth of the training images, at most 200]
    #[arg(long, value_name = "COUNT", value_parser = whole::<usize>(1..=u64::MAX))]
    k: Option<usize>,

    /// What a similarity is divided by before a neighbour votes with its exponential
    #[arg(long, value_name = "NUMBER", default_value = "0.5", value_parser = temperature)]
    knn_temperature: f64,
    /// Side in pixels of the images that the encoder sees. The shorter side is resized and the
    /// centre is cropped [default: the images' own size]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<u64>(4..=1024))]
    resolution: Option<u64>,

    /// The seed of the images, if the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// The run folder, new or empty. Without it, the accuracy is only printed, and an early stop
    /// stores nothing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Resume the run in --out; all other arguments must be those of the run. If no run has begun
    /// there, a new one is started. If the run has ended, its results are printed again
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    stop: StopArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check_folder(arguments.out.as_deref(), arguments.resume)?;
    arguments.stop.listen()?;
    let file = WeightsFile::read(&arguments.encoder)?;
    let mut dataset = arguments.data.load(arguments.seed)?;
    check_classes(&dataset, "knn")?;
    if let Some(pixels) = arguments.resolution {
        dataset = dataset.at_resolution(pixels as usize);
    }
    let vote = Vote {
        k: arguments.k,
        temperature: arguments.knn_temperature,
    };
    vote.neighbours(&dataset)?;
    let chosen = open(&arguments.device)?;
    let device = &chosen.device;
    let loaded = file.load(device)?;
    let resolution = arguments
        .resolution
        .map_or(dataset.train.height, |pixels| pixels as usize);
    let size = match arguments.resolution {
        Some(pixels) => [pixels as usize; 2],
        None => [dataset.train.width, dataset.train.height],
    };
    check_image_size("knn", size, &loaded.origin.encoder, 0)?;
    notice_absent(&dataset);
    let name = dataset.name.clone();
    let (k, top1) = match &arguments.out {
        Some(out) => {
            let folder = RunFolder::of_group(|| open_folder(out, arguments.resume, &chosen))?;
            let request = KnnRequest {
                loaded,
                vote,
                resolution: arguments.resolution.map(|pixels| pixels as usize),
                seed: arguments.seed,
                data: arguments.data.data,
                dataset,
            };
            let summary = run_experiment(device, &request, &folder)?;
            console::json(&summary);
            (summary.knn_k, summary.knn_top1)
        }
        None => {
            let partial = &mut Partial::new();
            let (data, partial) = ((&dataset, resolution), (partial, "knn"));
            let found = neighbour_accuracy(device, &loaded.encoder, data, vote, partial);
            let found = found.map_err(unstored)?;
            console::json(&json!({
                "command": "knn",
                "encoder": &arguments.encoder,
                "data": &name,
                "knn_k": found.k,
                "knn_temperature": vote.temperature,
                "knn_top1": found.top1,
            }));
            (found.k, found.top1)
        }
    };
    say!(
        "k-nearest-neighbour accuracy on {name} (k = {k}): {:.1} %",
        100.0 * top1
    );
    Ok(())
}

/// Reads a temperature. The exponential of a similarity over a smaller one overflows.
fn temperature(word: &str) -> std::result::Result<f64, String> {
    number(word, "from 0.01", |x| x >= 0.01)
}

/// Adds to a stop's message that the state is not stored.
fn unstored(error: Error) -> Error {
    match error {
        Error::Stopped {
            cause,
            place,
            folder,
        } => Error::Stopped {
            cause,
            place: format!("{place}; the state is not stored, since there is no --out"),
            folder,
        },
        other => other,
    }
}
