//! `parallax embed`: features of a split as a file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use super::arguments::{DataArguments, StopArguments, seed};
use super::device_choice::{DeviceRequest, open};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::features::complete_features;
use crate::nn::weights::digest;
use crate::runs::folder::write_whole;
use crate::runs::unfinished::resumable;
use crate::runs::weights_file::{read, state};

/// Write an encoder's features of a split, with the labels, to a safetensors file
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
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

    /// The seed of the images, if the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// Resume an interrupted embed with the same arguments. If the file of --out exists, nothing is
    /// computed
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    stop: StopArguments,
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
    let out = &arguments.out;
    if arguments.resume && out.is_file() {
        println!("{} exists, so nothing is computed", out.display());
        return Ok(());
    }
    arguments.stop.listen()?;
    let name = out
        .file_name()
        .ok_or_else(|| Error::usage(format!("--out {} does not name a file", out.display())))?;
    let name = name.to_string_lossy();
    let folder = out.parent().unwrap_or(Path::new(""));
    let dataset = arguments.data.load(arguments.seed)?;
    let split = split(&dataset, &arguments.split)?;
    let chosen = open(&arguments.device)?;
    let loaded = read(&chosen.device, &arguments.encoder)?;
    let resolution = arguments
        .resolution
        .map_or(split.height, |pixels| pixels as usize);
    let (device, encoder) = (&chosen.device, &loaded.encoder);
    // The file of a stopped embed, next to the file to write.
    let unfinished = format!("{name}.unfinished");
    if !arguments.resume && folder.join(&unfinished).is_file() {
        let path = folder.join(&unfinished);
        fs::remove_file(&path).map_err(|e| Error::write(&path, e))?;
    }
    let key = || {
        let weights = digest(&state(encoder, None))?;
        let (images, split) = (&dataset.digest, &arguments.split);
        let variants = device.variants().map(|table| table.to_toml());
        Ok(format!(
            "{weights} {images} {split} {resolution} {variants:?}"
        ))
    };
    let values = resumable((folder, &unfinished), &key, |partial| {
        let values = partial.entry("features".to_string()).or_default();
        complete_features(device, encoder, split, resolution, values)?;
        Ok(std::mem::take(values))
    })?;
    let width = encoder.feature_width();
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
    write_whole(folder, &name, &bytes)?;
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
