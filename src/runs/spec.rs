//! `config.toml`: everything that a run was told or resolved.

use serde::Serialize;

use super::folder::{CONFIG, RunFolder};
use super::weights_file::WeightsRecord;
use crate::augment::{PaddedCropAugmentation, SimClrAugmentation};
use crate::data::{DataKind, Dataset, Findings};
use crate::device::gpu::variants::VariantTable;
use crate::error::{Error, Result, listed};
use crate::nn::ResNetConfig;
use crate::optim::Optimization;
use crate::tensor::DType;

/// The configuration of a run.
#[derive(Clone, Debug, Serialize)]
pub struct RunConfig {
    pub command: String,
    pub protocol: String,
    /// `random`, or the file that the weights came from.
    pub init: String,
    /// What was made of the tensors of that file.
    #[serde(flatten)]
    pub weights: WeightsRecord,
    pub seed: u64,
    pub device: String,
    /// Side in pixels of the images that an evaluation without a training resizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
    /// The names of the classes, in the order of their labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Which variants of its kernels a GPU runs; a run that goes on takes them from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variants: Option<VariantTable>,
    pub encoder: EncoderConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<AttackConfig>,
    /// How neighbours vote, where that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn: Option<KnnConfig>,
    pub data: DataConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<AugmentationConfig>,
    pub versions: Versions,
}

/// The network.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderConfig {
    pub arch: String,
    pub width: f64,
    pub stem: String,
}

impl From<ResNetConfig> for EncoderConfig {
    fn from(config: ResNetConfig) -> Self {
        EncoderConfig {
            arch: config.arch.to_string(),
            width: config.width,
            stem: config.stem.to_string(),
        }
    }
}

/// How parameters move.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingConfig {
    pub batch_size: usize,
    /// Images that pass the network at a time, where the batch is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// How the network's activations are stored: f32 or f16.
    pub precision: String,
    pub steps: u64,
    pub optimizer: String,
    pub learning_rate: f64,
    pub schedule: String,
    pub weight_decay: f64,
    /// NT-Xent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Whether each view passes the encoder on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separate_passes: Option<bool>,
    /// Labelled images that are used, of a supervised training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labelled_images: Option<usize>,
    /// Number of steps over which the mean loss is compared with that of the same number of steps
    /// before. The training ends if it is not lower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_when_flat: Option<u64>,
    /// Test images of RotNet's rotation accuracy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_images: Option<usize>,
    /// Whether batch norm is in evaluation mode from the second epoch on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_after_first_epoch: Option<bool>,
    /// Side in pixels of the images that the encoder sees, where they are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
}

impl TrainingConfig {
    /// What every training has; the rest is none.
    pub fn new(batch_size: usize, steps: u64, optimization: &Optimization) -> Self {
        TrainingConfig {
            batch_size,
            micro_batch: None,
            precision: DType::F32.to_string(),
            steps,
            optimizer: optimization.optimizer.name().to_string(),
            learning_rate: optimization.learning_rate,
            schedule: optimization.schedule.to_string(),
            weight_decay: shortest(optimization.optimizer.weight_decay()),
            temperature: None,
            rotation_images: None,
            separate_passes: None,
            labelled_images: None,
            stop_when_flat: None,
            frozen_after_first_epoch: None,
            resolution: None,
        }
    }
}

/// A vote of nearest neighbours.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KnnConfig {
    pub k: usize,
    pub temperature: f64,
}

/// An attack on a classifier.
#[derive(Clone, Debug, Serialize)]
pub struct AttackConfig {
    pub method: String,
    /// PGD's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    pub eps: Vec<f64>,
    /// Images that are attacked.
    pub images: usize,
}

/// The f32 as the f64 that is written the same, so that 0.1 stays 0.1.
pub(super) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// What was trained on.
#[derive(Clone, Debug, Serialize)]
pub struct DataConfig {
    /// The word of `--data`.
    pub kind: DataKind,
    pub name: String,
    /// SHA-256 over all pixels and labels.
    pub digest: String,
    pub pretraining_images: usize,
    pub train_images: usize,
    pub test_images: usize,
    /// Classes of which the test set has no image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
    /// Measurements that the command would make on other data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    #[serde(flatten)]
    pub findings: Findings,
}

impl DataConfig {
    pub fn new(kind: DataKind, dataset: &Dataset) -> Self {
        DataConfig {
            kind,
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
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AugmentationConfig {
    SimClr {
        size: usize,
        jitter: [f64; 4],
        jitter_probability: f64,
        grayscale_probability: f64,
        flip_probability: f64,
        normalized: bool,
        one_draw_per_batch: bool,
    },
    PaddedCrop {
        padding: [u32; 2],
        flip_probability: f64,
    },
}

impl From<&SimClrAugmentation> for AugmentationConfig {
    fn from(augmentation: &SimClrAugmentation) -> Self {
        let jitter = &augmentation.jitter;
        AugmentationConfig::SimClr {
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
            normalized: augmentation.normalize.is_some(),
            one_draw_per_batch: augmentation.one_draw_per_batch,
        }
    }
}

impl From<&PaddedCropAugmentation> for AugmentationConfig {
    /// The padding is that of the sides, then that above and below.
    fn from(augmentation: &PaddedCropAugmentation) -> Self {
        AugmentationConfig::PaddedCrop {
            padding: [augmentation.padding, augmentation.vertical],
            flip_probability: shortest(augmentation.flip),
        }
    }
}

/// What computed it.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    pub parallax: String,
    pub wgpu: String,
    pub os: String,
    pub processor: String,
    pub threads: usize,
}

impl Versions {
    /// Those of this process.
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

impl RunConfig {
    /// As the file has it.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self)
            .map_err(|e| Error::usage(format!("the configuration cannot be written as TOML: {e}")))
    }
}

/// The table of variants that the configuration in `folder` has; none where it has no table, or
/// none that can be read.
///
/// # Errors
/// `Error::Io` where the file cannot be read.
pub fn variants_of(folder: &RunFolder) -> Result<Option<VariantTable>> {
    let bytes = folder.read(CONFIG)?.unwrap_or_default();
    let config: toml::Table = toml::from_str(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
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

/// Keys that earlier versions of the program did not write. A configuration without them does not
/// differ for that reason.
const NEW_KEYS: [&str; 7] = [
    "classes",
    "init_prefix",
    "init_names",
    "init_types",
    "init_left_out",
    "kept_random",
    "normalization",
];

/// Returns what differs between two configuration files, as `key: theirs, ours`, or `None` if
/// nothing does. Versions are left out, and the variants of a GPU's kernels, which a resumed run
/// takes from its configuration.
///
/// # Errors
/// The parser's message if a file is not TOML.
pub fn difference(theirs: &str, ours: &str) -> std::result::Result<Option<String>, String> {
    let read = |text: &str| -> std::result::Result<toml::Table, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.retain(|key, _| COMPARED.contains(&key));
        }
        let mut table = flatten(&table);
        table.retain(|key, _| !["versions", "variants"].contains(&first_word(key)));
        Ok(table)
    };
    let (theirs, ours) = (read(theirs)?, read(ours)?);
    let mut keys: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let is_new = |key: &&String| !theirs.contains_key(*key) && NEW_KEYS.contains(&first_word(key));
    let differing = keys
        .into_iter()
        .filter(|key| !is_new(key))
        .filter(|key| theirs.get(*key) != ours.get(*key));
    let differing: Vec<String> = differing
        .map(|key| {
            let shown =
                |table: &toml::Table| table.get(key).map_or("none".into(), |v| v.to_string());
            format!("{key}: {}, now {}", shown(&theirs), shown(&ours))
        })
        .collect();
    Ok((!differing.is_empty()).then(|| listed(&differing, "; ")))
}

/// Returns the first word of a key that names a value in a table.
fn first_word(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

/// One entry a value, under its full name.
fn flatten(table: &toml::Table) -> toml::Table {
    let mut flat = toml::Table::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                for (name, value) in flatten(inner) {
                    flat.insert(format!("{key}.{name}"), value);
                }
            }
            value => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_written_as_it_was_given() {
        assert_eq!(shortest(0.1), 0.1);
        assert_eq!(shortest(1e-6), 1e-6);
    }

    #[test]
    fn a_configuration_of_an_earlier_version_fits() {
        let before = "seed = 1\n[data]\ndigest = \"d\"\n";
        let now = "seed = 1\nclasses = [\"cat\"]\n[data]\ndigest = \"d\"\nskipped_images = 1\n\
                   [data.unread_files]\n\".gif\" = 4\n";
        let differs = |theirs, ours| difference(theirs, ours).unwrap();
        assert_eq!(differs(before, now), None);
        let renamed = now.replace("cat", "dog");
        assert_eq!(
            differs(now, &renamed).as_deref(),
            Some("classes: [\"cat\"], now [\"dog\"]")
        );
        let other = now.replace("\"d\"", "\"e\"");
        assert!(differs(now, &other).unwrap().starts_with("data.digest"));
    }

    #[test]
    fn differences_are_named_and_versions_are_not() {
        let first = "seed = 1\n[training]\nsteps = 5\n[versions]\nwgpu = \"30\"\n";
        let second = "seed = 1\n[training]\nsteps = 6\n[versions]\nwgpu = \"31\"\n";
        let differs = |theirs, ours| difference(theirs, ours).unwrap();
        assert_eq!(differs(first, first), None);
        assert_eq!(
            differs(first, second).as_deref(),
            Some("training.steps: 5, now 6")
        );
        assert_eq!(
            differs(first, "").as_deref(),
            Some("seed: 1, now none; training.steps: 5, now none")
        );
        assert!(difference("seed = ", first).is_err());
    }

    #[test]
    fn a_configuration_of_an_earlier_version_is_the_same() {
        let theirs = "seed = 1\n";
        let ours = "seed = 1\nkept_random = [\"conv1.weight\"]\n[init_left_out]\nfc = 2\n";
        assert_eq!(difference(theirs, ours).unwrap(), None);
        // Once it is there, it counts.
        let other = "seed = 1\nkept_random = []\n[init_left_out]\nfc = 2\n";
        let found = difference(other, ours).unwrap().expect("it differs");
        assert!(found.starts_with("kept_random: "), "{found}");
        let steps = "seed = 1\nsteps = 2\n";
        assert!(difference(theirs, steps).unwrap().is_some());
    }
}
