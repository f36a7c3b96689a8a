//! `parallax embed`: features of a split as a file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::arguments::{DataArguments, StopArguments, seed};
use super::device_choice::{DeviceRequest, open};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::features::complete_features;
use crate::nn::state::digest;
use crate::runs::folder::write_whole;
use crate::runs::image_size::check_image_size;
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

    /// Which images [default: test, or all images if there is no test set]
    #[arg(long, value_name = "train|test|unlabelled", value_parser = ["train", "test", "unlabelled"])]
    split: Option<String>,

    /// The file to write: features (F32, N x F), and labels (U32, N) where there are any
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Side in pixels of the images that the encoder sees. The shorter side is resized and the centre is cropped
    /// [default: the images' own size]
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
    let found = match name {
        "train" => Some(&dataset.train),
        "test" => Some(&dataset.test).filter(|split| !split.is_empty()),
        _ => {
            dataset.check_pretraining()?;
            dataset.unlabelled.as_ref()
        }
    };
    found.ok_or_else(|| {
        Error::usage(format!(
            "{} has no {name} images; use another --split",
            dataset.name
        ))
    })
}

/// The same safetensors file with the entries of its header in the order of their names: a hash map
/// has another order in each process, and the same features must give the same bytes.
fn with_sorted_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, data) = rest.split_at_checked(length)?;
    let header: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(header).ok()?;
    let mut header = serde_json::to_vec(&header).ok()?;
    // Tensors start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Some([&length[..], &header, data].concat())
}

/// What the file tells of the images: the data set, its classes, the image files in the order of the
/// features, and what was found in reading them.
fn about(dataset: &Dataset, split: &str) -> HashMap<String, String> {
    let mut about = HashMap::from([
        ("data".to_string(), dataset.name.clone()),
        ("split".to_string(), split.to_string()),
    ]);
    let files = dataset.files.as_ref().map(|files| match split {
        "train" => &files.train,
        _ => &files.test,
    });
    let lists = [("classes", Some(&dataset.classes)), ("files", files)];
    for (key, names) in lists {
        if let Some(names) = names.filter(|names| !names.is_empty()) {
            about.insert(key.to_string(), json!(names).to_string());
        }
    }
    if let Value::Object(findings) = json!(dataset.findings) {
        about.extend(
            findings
                .into_iter()
                .map(|(key, fact)| (key, fact.to_string())),
        );
    }
    about
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
    let mut dataset = arguments.data.load(arguments.seed)?;
    if let Some(pixels) = arguments.resolution {
        dataset = dataset.at_resolution(pixels as usize);
    }
    let part = match &arguments.split {
        Some(name) => name,
        None if dataset.test.is_empty() => "train",
        None => "test",
    };
    let split = split(&dataset, part)?;
    let chosen = open(&arguments.device)?;
    let loaded = read(&chosen.device, &arguments.encoder)?;
    let resolution = arguments
        .resolution
        .map_or(split.height, |pixels| pixels as usize);
    let size = match arguments.resolution {
        Some(pixels) => [pixels as usize; 2],
        None => [split.width, split.height],
    };
    check_image_size("embed", size, &loaded.origin.encoder, 0)?;
    let (device, encoder) = (&chosen.device, &loaded.encoder);
    // The file of a stopped embed, next to the file to write.
    let unfinished = format!("{name}.unfinished");
    if !arguments.resume && folder.join(&unfinished).is_file() {
        let path = folder.join(&unfinished);
        fs::remove_file(&path).map_err(|e| Error::write(&path, e))?;
    }
    let key = || {
        let weights = digest(device, &state(encoder, None))?;
        let images = &dataset.digest;
        let variants = device.variants().map(|table| table.to_toml());
        Ok(format!(
            "{weights} {images} {part} {resolution} {variants:?}"
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
    let bytes = serialize(views, Some(about(&dataset, part))).map_err(packed)?;
    let bytes = with_sorted_header(&bytes)
        .ok_or_else(|| Error::usage("features cannot be packed: their header cannot be read"))?;
    write_whole(folder, &name, &bytes)?;
    println!(
        "{} features of {} numbers, of the {} images of {}, in {}",
        split.len(),
        width,
        part,
        dataset.name,
        arguments.out.display()
    );
    Ok(())
}
