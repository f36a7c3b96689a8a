//! `parallax embed`: features of a split as a file.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use super::arguments::{DataArguments, seed};
use super::device_choice::{DeviceRequest, open};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::features::features;
use crate::experiment::encoder_file::read;

/// Write an encoder's features of a split, with the labels, to a safetensors file
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file that a training wrote
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// Which images
    #[arg(long, value_name = "train|test|unlabelled", default_value = "test", value_parser = ["train", "test", "unlabelled"])]
    split: String,

    /// The file to write: features (F32, N x F), and labels (U32, N) where there are any
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Side in pixels to which images are resized [default: the data set's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(4..=1024))]
    resolution: Option<u64>,

    /// The seed of the images, where the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,
}

fn split<'a>(dataset: &'a Dataset, name: &str) -> Result<&'a Split> {
    match name {
        "train" => Ok(&dataset.train),
        "test" => Ok(&dataset.test),
        _ => dataset.unlabelled.as_ref().ok_or_else(|| {
            Error::usage(format!(
                "{} has no unlabelled images; use --split train or --split test",
                dataset.name
            ))
        }),
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let dataset = arguments.data.load(arguments.seed)?;
    let split = split(&dataset, &arguments.split)?;
    let chosen = open(&arguments.device)?;
    let loaded = read(&chosen.device, &arguments.encoder)?;
    let resolution = arguments
        .resolution
        .map_or(split.height, |pixels| pixels as usize);
    let values = features(&chosen.device, &loaded.encoder, split, resolution)?;
    let width = loaded.encoder.feature_width();
    let packed = |error| Error::usage(format!("features cannot be packed: {error}"));
    let mut views = vec![(
        "features",
        TensorView::new(
            Dtype::F32,
            vec![split.len(), width],
            bytemuck::cast_slice(&values),
        )
        .map_err(packed)?,
    )];
    if let Some(labels) = &split.labels {
        let bytes = bytemuck::cast_slice(labels);
        let view = TensorView::new(Dtype::U32, vec![split.len()], bytes).map_err(packed)?;
        views.push(("labels", view));
    }
    let about = HashMap::from([("data".to_string(), dataset.name.clone())]);
    let bytes = serialize(views, Some(about)).map_err(packed)?;
    std::fs::write(&arguments.out, bytes).map_err(|e| Error::write(&arguments.out, e))?;
    println!(
        "{} features of {} numbers, of the {} images of {}, in {}",
        split.len(),
        width,
        arguments.split,
        dataset.name,
        arguments.out.display()
    );
    Ok(())
}
