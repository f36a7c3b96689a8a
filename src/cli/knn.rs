//! `parallax knn`: an encoder judged by its nearest neighbours.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{DataArguments, seed};
use super::device_choice::{DeviceRequest, open};
use crate::error::Result;
use crate::evaluate::knn::judge;
use crate::experiment::encoder_file::read;

/// Judge an encoder by the nearest neighbours of the test images among the training images
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file that a training wrote
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// The seed of the images, where the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let dataset = arguments.data.load(arguments.seed)?;
    let chosen = open(&arguments.device)?;
    let loaded = read(&chosen.device, &arguments.encoder)?;
    let found = judge(&chosen.device, &loaded.encoder, &dataset)?;
    println!(
        "k-nearest-neighbour accuracy on {} (k = {}): {:.1} %",
        dataset.name,
        found.k,
        100.0 * found.top1
    );
    Ok(())
}
