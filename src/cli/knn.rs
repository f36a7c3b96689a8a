//! `parallax knn`: nearest-neighbour evaluation of an encoder.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{DataArguments, StopArguments, no_out, open_folder, seed};
use super::device_choice::{DeviceRequest, open};
use crate::error::{Error, Result};
use crate::evaluate::knn::neighbour_accuracy;
use crate::evaluate::partial::Partial;
use crate::runs::knn::{KnnRequest, run as run_experiment};
use crate::runs::weights_file::read;

/// Evaluate an encoder by the nearest neighbours of the test images among the training images
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// The seed of the images, if the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
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
    if arguments.resume && arguments.out.is_none() {
        return Err(no_out());
    }
    arguments.stop.listen()?;
    let dataset = arguments.data.load(arguments.seed)?;
    let chosen = open(&arguments.device)?;
    let device = &chosen.device;
    let loaded = read(device, &arguments.encoder)?;
    let name = dataset.name.clone();
    let (k, top1) = match &arguments.out {
        Some(out) => {
            let folder = open_folder(out, arguments.resume, &chosen)?;
            let request = KnnRequest {
                path: &arguments.encoder,
                loaded,
                seed: arguments.seed,
                data: arguments.data.data,
                dataset,
            };
            let summary = run_experiment(device, &request, &folder)?;
            (summary.knn_k, summary.knn_top1)
        }
        None => {
            let partial = &mut Partial::new();
            let found = neighbour_accuracy(device, &loaded.encoder, &dataset, (partial, "knn"));
            let found = found.map_err(unstored)?;
            (found.k, found.top1)
        }
    };
    println!(
        "k-nearest-neighbour accuracy on {name} (k = {k}): {:.1} %",
        100.0 * top1
    );
    Ok(())
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
