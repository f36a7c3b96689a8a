//! `config.toml`: the settings of a run, and facts about it that were measured or derived.

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::folder::{CONFIG, RunFolder};
use super::result::Evaluations;
use super::spec::{self, RunSpec, flat, option, options, ordered};
use super::weights_file::{Loaded, WeightsRecord};
use crate::augment::{PaddedCropAugmentation, SimClrAugmentation};
use crate::data::{Dataset, Findings};
use crate::device::Device;
use crate::device::gpu::variants::VariantTable;
use crate::error::{Error, Result, listed};
use crate::nn::{Normalization, ResNetConfig};
use crate::optim::Optimization;

/// The comment at the start of the file.
const HEADER: &str = "# The settings of a run, and facts about it. --config takes this file: it reads the settings and\n\
                      # passes over the facts, such as device, data.digest and versions.\n";

/// Facts recorded in addition to the settings: derived from them, from the data or from a file of
/// weights. A fact with the key of a setting is its value in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// `random`, or the file that the weights came from.
    pub init: String,
    /// Which tensors of that file were used, converted or left out.
    #[serde(flatten)]
    pub weights: WeightsRecord,
    pub device: String,
    /// The names of the classes, in the order of their labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    pub encoder: EncoderFacts,
    pub training: Option<TrainingFacts>,
    pub attack: Option<AttackFacts>,
    /// How neighbours vote.
    pub knn: Option<KnnFacts>,
    /// How accuracies are measured during the training.
    #[serde(skip_serializing_if = "Evaluations::is_empty")]
    pub evaluations: Evaluations,
    pub data: DataFacts,
    pub augmentation: Option<AugmentationFacts>,
    /// Which variants of its kernels a GPU runs. A resumed run takes them from here.
    pub variants: Option<VariantTable>,
    pub versions: Versions,
}

impl Facts {
    /// The facts that every run has. The network has random weights.
    pub fn new(device: &Device, dataset: &Dataset, encoder: ResNetConfig) -> Self {
        Facts {
            init: "random".to_string(),
            device: device.name(),
            classes: dataset.classes.clone(),
            encoder: encoder.into(),
            data: DataFacts::new(dataset),
            variants: device.variants(),
            versions: Versions::current(),
            ..Facts::default()
        }
    }

    /// As [`Facts::new`], for a network that was loaded.
    pub fn of_loaded(device: &Device, dataset: &Dataset, loaded: &Loaded) -> Self {
        Facts {
            init: loaded.source.clone(),
            weights: loaded.record.clone(),
            ..Facts::new(device, dataset, loaded.origin.encoder)
        }
    }

    /// Returns the content of `config.toml` for the run `spec`.
    ///
    /// # Errors
    /// `Error::Usage` if a number is too large for TOML.
    pub fn to_toml(&self, spec: &RunSpec) -> Result<String> {
        let facts = Table::try_from(self).map_err(|e| {
            Error::usage(format!("the configuration cannot be written as TOML: {e}"))
        })?;
        let mut table = spec.to_table()?;
        merge(&mut table, facts);
        Ok(format!("{HEADER}{}", ordered(table)))
    }

    /// Returns the keys of the facts in the configuration of a run. There are none in a
    /// configuration that a user wrote, which has no table `versions`.
    ///
    /// # Errors
    /// The message about a value of another type.
    pub(super) fn keys(table: &Table) -> std::result::Result<Vec<String>, String> {
        if !table.contains_key("versions") {
            return Ok(Vec::new());
        }
        let facts: Facts = table
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| e.to_string())?;
        let facts = Table::try_from(facts).map_err(|e| e.to_string())?;
        Ok(flat(&facts).into_iter().map(|(key, _)| key).collect())
    }
}

/// Writes the values of `from` over those of `into`.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(values)) => merge(inner, values),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EncoderFacts {
    pub arch: String,
    pub width: f64,
    pub stem: String,
}

impl From<ResNetConfig> for EncoderFacts {
    fn from(config: ResNetConfig) -> Self {
        EncoderFacts {
            arch: config.arch.to_string(),
            width: config.width,
            stem: config.stem.to_string(),
        }
    }
}

/// The optimiser and its settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingFacts {
    /// Images per step; all labelled images if there are fewer.
    pub batch_size: usize,
    /// The type of activations, if it is not a setting.
    pub precision: Option<String>,
    pub steps: u64,
    pub optimizer: String,
    pub learning_rate: f64,
    pub schedule: String,
    pub weight_decay: f64,
    /// Whether the encoder processes each view separately.
    pub separate_passes: Option<bool>,
    /// Labelled images that are used, of a supervised training.
    pub labelled_images: Option<usize>,
    /// Test images of RotNet's rotation accuracy.
    pub rotation_images: Option<usize>,
    /// Whether batch norm is in evaluation mode from the second epoch on.
    pub frozen_after_first_epoch: Option<bool>,
    /// Side in pixels of the encoder's input images, if they are resized.
    pub resolution: Option<usize>,
}

impl TrainingFacts {
    /// The facts that every training has.
    pub fn new(batch_size: usize, steps: u64, optimization: &Optimization) -> Self {
        TrainingFacts {
            batch_size,
            steps,
            optimizer: optimization.optimizer.name().to_string(),
            learning_rate: optimization.learning_rate,
            schedule: optimization.schedule.to_string(),
            weight_decay: shortest(optimization.optimizer.weight_decay()),
            ..TrainingFacts::default()
        }
    }
}

/// A vote of nearest neighbours.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KnnFacts {
    pub k: usize,
    pub temperature: f64,
}

/// An attack on a classifier.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackFacts {
    pub eps: Vec<f64>,
    /// Images that are attacked.
    pub images: usize,
}

/// The f32 as the f64 that is written the same, so that 0.1 stays 0.1.
pub(super) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The images of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DataFacts {
    pub name: String,
    /// SHA-256 over all pixels and labels.
    pub digest: String,
    pub pretraining_images: usize,
    pub train_images: usize,
    pub test_images: usize,
    /// Classes without test images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
    /// Measurements that the command left out because the data set does not allow them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    #[serde(flatten)]
    pub findings: Findings,
}

impl DataFacts {
    pub fn new(dataset: &Dataset) -> Self {
        DataFacts {
            name: dataset.name.clone(),
            digest: dataset.digest.clone(),
            pretraining_images: dataset.pretraining().len(),
            train_images: dataset.train.len(),
            test_images: dataset.test.len(),
            absent_classes: dataset.absent_classes(),
            left_out: Vec::new(),
            findings: dataset.findings.clone(),
        }
    }
}

/// How the images of a step are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AugmentationFacts {
    SimClr {
        size: usize,
        jitter: [f64; 4],
        jitter_probability: f64,
        grayscale_probability: f64,
        flip_probability: f64,
        /// Of the Gaussian blur, if views are blurred.
        #[serde(skip_serializing_if = "Option::is_none")]
        blur_probability: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        blur_sigma: Option<[f64; 2]>,
        normalized: bool,
        one_draw_per_batch: bool,
    },
    PaddedCrop {
        padding: [u32; 2],
        flip_probability: f64,
    },
}

impl From<&SimClrAugmentation> for AugmentationFacts {
    fn from(augmentation: &SimClrAugmentation) -> Self {
        let jitter = &augmentation.jitter;
        AugmentationFacts::SimClr {
            size: augmentation.size,
            jitter: [
                jitter.brightness,
                jitter.contrast,
                jitter.saturation,
                jitter.hue,
            ]
            .map(shortest),
            jitter_probability: shortest(jitter.probability),
            grayscale_probability: shortest(augmentation.grayscale),
            flip_probability: shortest(augmentation.flip),
            blur_probability: augmentation.blur.map(|blur| shortest(blur.probability)),
            blur_sigma: augmentation.blur.map(|blur| blur.sigma.map(shortest)),
            normalized: augmentation.normalize.is_some(),
            one_draw_per_batch: augmentation.one_draw_per_batch,
        }
    }
}

impl From<&PaddedCropAugmentation> for AugmentationFacts {
    /// The padding is that of the sides, then that above and below.
    fn from(augmentation: &PaddedCropAugmentation) -> Self {
        AugmentationFacts::PaddedCrop {
            padding: [augmentation.padding, augmentation.vertical],
            flip_probability: shortest(augmentation.flip),
        }
    }
}

/// The program, its GPU library, and the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Versions {
    pub parallax: String,
    pub wgpu: String,
    pub os: String,
    pub processor: String,
    pub threads: usize,
}

impl Versions {
    /// The versions of this process.
    pub fn current() -> Self {
        Versions {
            parallax: env!("CARGO_PKG_VERSION").to_string(),
            wgpu: env!("PARALLAX_WGPU_VERSION").to_string(),
            os: std::env::consts::OS.to_string(),
            processor: std::env::consts::ARCH.to_string(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Returns the table of variants in the configuration of `folder`, or `None` if it has no table
/// that can be read.
///
/// # Errors
/// `Error::Io` if the file cannot be read.
pub fn variants_of(folder: &RunFolder) -> Result<Option<VariantTable>> {
    let bytes = folder.read(CONFIG)?.unwrap_or_default();
    let config: Table = toml::from_str(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
    let table = config.get("variants").cloned();
    Ok(table.and_then(|table| table.try_into().ok()))
}

/// Keys of the table `data` that are compared. The digest of pixels and labels stands for all
/// others.
const COMPARED: [&str; 6] = [
    "kind",
    "name",
    "digest",
    "pretraining_images",
    "train_images",
    "test_images",
];

/// Tables that are not compared. A run keeps those that it was started with: evaluations follow from
/// the settings and the data, and a resumed run takes the variants of a GPU's kernels from its
/// configuration.
pub const KEPT: [&str; 3] = ["versions", "variants", "evaluations"];

/// Facts that earlier versions of the program did not write. A configuration without them does not
/// differ for that reason.
const NEW_FACTS: [&str; 6] = [
    "classes",
    "init_prefix",
    "init_names",
    "init_types",
    "init_left_out",
    "kept_random",
];

/// Settings that are not compared, because results do not depend on them or a fact replaces them
/// (`labelled_images` replaces `labels`). Earlier versions did not write them.
const NOT_COMPARED: [&str; 22] = [
    "data.hold_images",
    "data.streamed_bytes",
    "no_knn",
    "evaluate_every",
    "untrained",
    "arch",
    "width",
    "training.labels",
    "training.epochs",
    "training.augment",
    "training.decay",
    "training.warmup",
    "training.rotation_fraction",
    "training.recompute",
    "training.save_every",
    "training.keep_checkpoints",
    "training.tensorboard",
    "training.checkpoint_every",
    "training.profile",
    "attack.fraction",
    "attack.match_classes_by",
    "attack.save",
];

/// A setting or fact that differs between two configurations, with its values as TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: String,
    pub theirs: String,
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, now {}", self.key, self.theirs, self.ours)
    }
}

/// All differences in words.
pub(super) fn described(differences: &[Difference]) -> String {
    let words: Vec<String> = differences.iter().map(Difference::to_string).collect();
    listed(&words, "; ")
}

/// Returns the configuration of a run that was started with `theirs` and is resumed with `ours`, or
/// `None` if it stays as it is.
///
/// # Errors
/// The parser's message if a file is not TOML.
pub(super) fn resumed(theirs: &str, ours: &str) -> std::result::Result<Option<String>, String> {
    let table = |text: &str| text.parse::<Table>().map_err(|e| e.to_string());
    let (theirs, mut ours) = (table(theirs)?, table(ours)?);
    for key in KEPT {
        if let Some(value) = theirs.get(key) {
            ours.insert(key.to_string(), value.clone());
        }
    }
    Ok((ours != theirs).then(|| format!("{HEADER}{}", ordered(ours))))
}

/// Returns what differs between two configuration files, as `key: theirs, ours`, or `None` if
/// nothing does. A setting that is missing in `theirs` must have its default in `ours`.
///
/// # Errors
/// The parser's message if a file is not TOML.
pub fn differences(theirs: &str, ours: &str) -> std::result::Result<Vec<Difference>, String> {
    let read = |text: &str| -> std::result::Result<Table, String> {
        let mut table: Table = toml::from_str(text).map_err(|e| e.to_string())?;
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.retain(|key, _| COMPARED.contains(&key));
        }
        // Earlier versions wrote `paper protocol, random start`, which `init` says too.
        if let Some(toml::Value::String(protocol)) = table.get_mut("protocol") {
            *protocol = first_word(protocol, ' ').to_string();
        }
        // It is written unless it is the default, and for weights from elsewhere.
        let normalization = || Normalization::default().to_string().into();
        table
            .entry("normalization".to_string())
            .or_insert_with(normalization);
        let mut table = flat(&table);
        table
            .retain(|key, _| !KEPT.contains(&first_word(key, '.')) && !NOT_COMPARED.contains(&key));
        Ok(table)
    };
    let (theirs, ours) = (read(theirs)?, read(ours)?);
    let command = ours.get("command").and_then(toml::Value::as_str);
    let options = options(command.unwrap_or_default());
    let is_default = |key: &str| {
        let value = ours.get(key);
        value.is_some_and(|value| option(&options, key).is_some_and(|o| spec::is_default(o, value)))
    };
    let mut keys: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let is_new = |key: &str| {
        !theirs.contains_key(key) && (NEW_FACTS.contains(&first_word(key, '.')) || is_default(key))
    };
    let differing = keys
        .into_iter()
        .filter(|key| theirs.get(*key) != ours.get(*key) && !is_new(key));
    let shown = |table: &Table, key: &str| table.get(key).map_or("none".into(), |v| v.to_string());
    let differing = differing.map(|key| Difference {
        key: key.clone(),
        theirs: shown(&theirs, key),
        ours: shown(&ours, key),
    });
    Ok(differing.collect())
}

/// A configuration that asks for more steps than another one.
pub(super) struct Extension {
    pub from: i64,
    pub to: i64,
    /// What else differs, as [`differences`] names it.
    pub differences: Vec<Difference>,
    /// Whether the learning rates differ for no other reason than the number of steps.
    pub schedule_differs: bool,
}

/// Compares two configuration files, of which `ours` asks for more steps. Returns `None` if it does
/// not.
///
/// # Errors
/// As [`differences`].
pub(super) fn extension(
    theirs: &str,
    ours: &str,
) -> std::result::Result<Option<Extension>, String> {
    let table = |text: &str| text.parse::<Table>().map_err(|e| e.to_string());
    let (mut theirs, ours_table) = (table(theirs)?, table(ours)?);
    let steps = |table: &Table| table.get("training")?.get("steps")?.as_integer();
    let (Some(from), Some(to)) = (steps(&theirs), steps(&ours_table)) else {
        return Ok(None);
    };
    if to <= from {
        return Ok(None);
    }
    if let Some(training) = theirs
        .get_mut("training")
        .and_then(toml::Value::as_table_mut)
    {
        training.insert("steps".to_string(), to.into());
    }
    let differences = differences(&theirs.to_string(), ours)?;
    // A cosine is the only schedule whose rates depend on the number of steps.
    let is_cosine = |table: &Table| {
        let schedule = table.get("training").and_then(|t| t.get("schedule"));
        let schedule = schedule.and_then(toml::Value::as_str);
        schedule.is_some_and(|words| words.starts_with("cosine"))
    };
    let is_only_schedule = matches!(&differences[..], [one] if one.key == "training.schedule");
    Ok(Some(Extension {
        from,
        to,
        differences,
        schedule_differs: is_only_schedule && is_cosine(&theirs) && is_cosine(&ours_table),
    }))
}

/// Returns the part of `words` before the first `end`.
pub fn first_word(words: &str, end: char) -> &str {
    words.split(end).next().unwrap_or(words)
}
