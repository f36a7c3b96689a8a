//! `parallax embed`: features of a split as a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::arguments::{DataArguments, StopArguments, seed, whole};
use super::device_choice::{DeviceRequest, open};
use super::output::{self, ForceArguments, Inputs};
use crate::console::{self, say};
use crate::data::{Dataset, Split};
use crate::distributed;
use crate::error::{Error, Result};
use crate::evaluate::features::complete_features;
use crate::evaluate::partial::Partial;
use crate::nn::weights::digest;
use crate::runs::image_size::check_image_size;
use crate::runs::numpy;
use crate::runs::safetensors_file::{Stored, packed};
use crate::runs::settings::NormalizationSetting;
use crate::runs::unfinished::{is_stored, resumable};
use crate::runs::weights_file::{Loaded, WeightsFile, state};
use crate::runs::whole_file::{Place, folder_of, write_file};

/// The tensor or array that every file of embed has.
const FEATURES: &str = "features";
/// The labels, if the data set has any.
const LABELS: &str = "labels";

/// Write an encoder's features of a split, with the labels, to a file for other programs
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    images: NormalizationSetting,

    #[command(flatten)]
    data: DataArguments,

    /// Split to embed [default: test, or all images if there is no test set]
    #[arg(long, value_name = "train|test|unlabelled", value_parser = ["train", "test", "unlabelled"])]
    split: Option<String>,

    /// The file to write. Its suffix selects the format: .npz has the arrays features, labels,
    /// classes, files and about; .npy has the features alone; any other suffix gives a safetensors
    /// file with features (F32, N x F), and labels (U32, N) if the images have them
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Side in pixels of the encoder's input images. The shorter side is resized and the centre is
    /// cropped [default: the images' own size]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<u64>(4..=1024))]
    resolution: Option<u64>,

    /// The seed of the images, if the program draws them
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// Resume an interrupted embed with the same arguments. If the file of --out holds features,
    /// nothing is computed
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    force: ForceArguments,

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

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, resume, .. } = arguments;
    let inputs = Inputs {
        file: Some(("--encoder", &arguments.encoder)),
        data: arguments.data.dir(),
    };
    let group = distributed::current();
    let is_done = group.is_first() && *resume && holds_features(out);
    let is_done = group.any(u32::from(is_done))? != 0;
    output::check(out, arguments.force.force || is_done, None, &inputs)?;
    if is_done {
        say!("{} exists, so nothing is computed", out.display());
        return Ok(());
    }
    let stored = Unfinished::of(out, *resume)?;
    arguments.stop.listen()?;
    let file = WeightsFile::read(&arguments.encoder)?;
    let file = file.with_normalization(arguments.images.normalization)?;
    let mut dataset = arguments.data.load(arguments.seed)?;
    if let Some(pixels) = arguments.resolution {
        dataset = dataset.at_resolution(pixels as usize)?;
    }
    let part = match &arguments.split {
        Some(name) => name,
        None if dataset.test.is_empty() => "train",
        None => "test",
    };
    let split = split(&dataset, part)?;
    let chosen = open(&arguments.device)?;
    let device = &chosen.device;
    let loaded = file.load(device)?;
    let encoder = &loaded.encoder;
    let resolution = arguments
        .resolution
        .map_or(split.height, |pixels| pixels as usize);
    let size = match arguments.resolution {
        Some(pixels) => [pixels as usize; 2],
        None => [split.width, split.height],
    };
    check_image_size("embed", size, &loaded.origin.encoder, 0)?;
    let key = || {
        let weights = digest(&state(encoder, None))?;
        let (images, normalization) = (&dataset.digest, encoder.normalization());
        let variants = device.variants().map(|table| table.to_toml());
        Ok(format!(
            "{weights} {images} {normalization} {part} {resolution} {variants:?}"
        ))
    };
    let values = stored.resumable(&key, |partial| {
        let values = partial.entry("features".to_string()).or_default();
        if group.size() > 1 {
            // The first rank alone has stored values.
            let stored = group.broadcast(bytemuck::cast_slice(values).to_vec())?;
            *values = bytemuck::pod_collect_to_vec(&stored);
        }
        complete_features(device, encoder, split, resolution, values)?;
        Ok(std::mem::take(values))
    })?;
    if !group.is_first() {
        return Ok(());
    }
    let width = encoder.feature_width();
    let shape = [split.len(), width];
    let about = about(&loaded, &dataset, part)?;
    let end = out.extension().unwrap_or_default().to_ascii_lowercase();
    let content = match end.to_str() {
        Some("npy") => numpy::floats(&shape, &values),
        Some("npz") => npz((&shape, &values), &dataset.classes, split, &about),
        _ => safetensors((&shape, &values), &dataset.classes, split, about)?,
    };
    write_file(out, &content)?;
    console::json(&json!({
        "command": "embed",
        "data": &dataset.name,
        "split": part,
        "images": split.len(),
        "features": width,
        "out": out,
    }));
    say!(
        "{} features of {} numbers, of the {} images of {}, in {}",
        split.len(),
        width,
        part,
        dataset.name,
        out.display()
    );
    Ok(())
}

/// Whether `path` is a file that embed wrote.
fn holds_features(path: &Path) -> bool {
    let names = |bytes: Vec<u8>| {
        numpy::is_array(&bytes, FEATURES)
            || SafeTensors::deserialize(&bytes).is_ok_and(|file| file.tensor(FEATURES).is_ok())
    };
    path.is_file() && fs::read(path).is_ok_and(names)
}

/// Returns the lists of names in a file that are not empty: the classes, and the image files in the
/// order of the features.
fn names<'a>(
    classes: &'a [String],
    split: &'a Split,
) -> impl Iterator<Item = (&'static str, &'a [String])> {
    let lists = [("classes", classes), ("files", &split.files)];
    lists.into_iter().filter(|(_, names)| !names.is_empty())
}

/// Returns a safetensors file. Lists of names are JSON in its metadata.
fn safetensors(
    (shape, values): (&[usize], &[f32]),
    classes: &[String],
    split: &Split,
    mut about: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut tensors = vec![Stored {
        name: FEATURES.to_string(),
        dtype: "F32",
        shape: shape.to_vec(),
        bytes: bytemuck::cast_slice(values),
    }];
    tensors.extend(split.labels.as_ref().map(|labels| Stored {
        name: LABELS.to_string(),
        dtype: "U32",
        shape: vec![labels.len()],
        bytes: bytemuck::cast_slice(labels),
    }));
    let lists = names(classes, split);
    about.extend(lists.map(|(key, names)| (key.to_string(), json!(names).to_string())));
    packed(&tensors, &about)
}

/// Returns an .npz file. Lists of names are arrays of it, and the other entries are the JSON object
/// `about`.
fn npz(
    (shape, values): (&[usize], &[f32]),
    classes: &[String],
    split: &Split,
    about: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut arrays = vec![(FEATURES, numpy::floats(shape, values))];
    arrays.extend(
        split
            .labels
            .as_ref()
            .map(|labels| (LABELS, numpy::labels(labels))),
    );
    arrays.extend(names(classes, split).map(|(key, names)| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        (key, numpy::strings(&[names.len()], &names))
    }));
    arrays.push(("about", numpy::strings(&[], &[&json!(about).to_string()])));
    numpy::archive(&arrays)
}

/// Returns the other entries of the file: the data set, the findings of the reader, and the
/// network. Lists are JSON.
fn about(loaded: &Loaded, dataset: &Dataset, part: &str) -> Result<BTreeMap<String, String>> {
    let network = loaded.origin.encoder;
    let mut about = BTreeMap::from(
        [
            ("data", dataset.name.clone()),
            ("split", part.to_string()),
            ("encoder", loaded.source.clone()),
            ("arch", network.arch.to_string()),
            ("width", network.width.to_string()),
            ("stem", network.stem.to_string()),
        ]
        .map(|(key, value)| (key.to_string(), value)),
    );
    let unpacked = |e| Error::usage(format!("metadata cannot be packed: {e}"));
    let findings = serde_json::to_value(&dataset.findings).map_err(unpacked)?;
    let record = serde_json::to_value(&loaded.record).map_err(unpacked)?;
    for (key, value) in [findings, record]
        .iter()
        .filter_map(Value::as_object)
        .flatten()
    {
        let words = value.as_str().map(str::to_string);
        about.insert(key.clone(), words.unwrap_or_else(|| value.to_string()));
    }
    Ok(about)
}

/// The file of a stopped embed, beside the file to write. `None` if that is no regular file, and on
/// ranks beside the first; an early stop then stores nothing.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    /// Returns the file for `out`. Without `resume`, an earlier one is removed.
    fn of(out: &Path, resume: bool) -> Result<Self> {
        if !distributed::current().is_first() {
            return Ok(Unfinished(None));
        }
        let Place::Regular(target) = Place::of(out) else {
            return Ok(Unfinished(None));
        };
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".unfinished");
        let path = folder_of(&target).join(name);
        if !resume && path.is_file() {
            if !is_stored(&path) {
                return Err(Error::usage(format!(
                    "{} is in the way of the file of an interrupted embed; move it away",
                    path.display()
                )));
            }
            fs::remove_file(&path).map_err(|e| Error::write(&path, e))?;
        }
        Ok(Unfinished(Some(path)))
    }

    fn resumable<R>(
        &self,
        key: &dyn Fn() -> Result<String>,
        evaluate: impl FnOnce(&mut Partial) -> Result<R>,
    ) -> Result<R> {
        let Some(path) = &self.0 else {
            return evaluate(&mut Partial::new());
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        resumable((folder_of(path), &name), key, evaluate)
    }
}
