//! The settings of a run. A field is an option, defined once: its comment is the help text, its
//! parser checks the command line and configuration files, and its name is its key in
//! `config.toml`, in the table that has the name of its help heading (`Run` is the top level).
//!
//! A struct lists its own fields before those that it flattens, since they would have the heading
//! of the flattened ones otherwise.

mod evaluation;
mod training;

use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches, ValueEnum};
use serde::{Serialize, Serializer};

use super::values::{positive, seed, whole};
use super::{cache, data_cache, memory};
use crate::console::one_notice;
use crate::data::{DataKind, Dataset, HoldImages, LoadOptions, OnBadImage};
use crate::error::Result;
use crate::nn::{Arch, Normalization, ResNetConfig, Stem};
use crate::objectives::Protocol;
pub use evaluation::{
    Attack, AttackName, AttackSettings, Knn, KnnSettings, Linear, LinearTraining, Transfer,
};
pub use training::{
    ClassifierTraining, Finetune, OptimizerSettings, Pretraining, RotNet, RotNetTraining, Rule,
    SimClr, SimClrTraining, Supervised, Switch, TrainingSettings,
};

/// Whether the option with this name was given, on the command line or in a file.
pub type Given<'a> = &'a dyn Fn(&str) -> bool;

/// Returns settings that have a default each with these defaults.
pub fn defaults<S: Args + FromArgMatches>() -> S {
    let command = S::augment_args(clap::Command::new("defaults"));
    let matches = command.get_matches_from(["defaults"]);
    S::from_arg_matches(&matches).expect("every setting has a default")
}

/// Writes a path as text, also one that is not UTF-8.
fn shown<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn shown_if_any<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let path = path.as_ref().map(|path| path.display().to_string());
    path.serialize(serializer)
}

/// Replaces the default of an option that was not given by one that depends on other settings.
fn replace<T>(is_given: bool, value: &mut T, default: T) {
    if !is_given {
        *value = default;
    }
}

/// Settings of every run.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Common {
    /// The seed of weights, order and views, and of the images that the program draws
    #[arg(long, default_value = "0", value_parser = seed)]
    pub seed: u64,

    /// sound: the choices of the papers that introduced the methods. paper: those of the reproduced
    /// paper's released code
    #[arg(long, value_name = "sound|paper", default_value = "sound")]
    pub protocol: Protocol,

    #[command(flatten)]
    pub data: DataSettings,
}

/// The images of a run.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Data")]
pub struct DataSettings {
    /// Data set: shapes (generated), shapes-inverted (generated, dark on light, 24 x 24 pixels),
    /// cifar10, cifar100, stl10, or folder: image files in DIR/train/CLASS/... and
    /// DIR/test/CLASS/..., in DIR/CLASS/..., or without class folders
    #[arg(long = "data", value_name = KINDS, default_value = "shapes")]
    pub kind: DataKind,

    /// The folder of the data's files [default: the environment variable PARALLAX_DATA]
    #[arg(long = "data-dir", value_name = "DIR")]
    #[serde(
        serialize_with = "shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub dir: Option<PathBuf>,

    /// Resize the shorter side of each image to this many pixels, with antialiasing, and crop the
    /// centre. SimCLR's views then have this size too [default: the images' own size, which must be
    /// one]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<usize>(1..=2048))]
    pub size: Option<usize>,

    /// What to do if an image file cannot be decoded whole: error, or skip, which leaves it out and
    /// records it
    #[arg(long, value_name = "error|skip", default_value = "error")]
    pub on_bad_image: OnBadImage,

    /// Whether the decoded images of a folder are held in memory: always, never, which decodes them
    /// again for each batch, or auto, which holds them if they take at most a quarter of the free
    /// memory. Results do not depend on it [default: auto]
    #[arg(long, value_name = "auto|always|never")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_images: Option<HoldImages>,
}

const KINDS: &str = "shapes|shapes-inverted|cifar10|cifar100|stl10|folder";

impl DataSettings {
    /// The folder of the data's files.
    pub fn dir(&self) -> Option<PathBuf> {
        let named = self.dir.clone();
        if self.is_drawn() {
            // The variable names a folder for the data sets that have files.
            return named;
        }
        named.or_else(|| std::env::var_os("PARALLAX_DATA").map(PathBuf::from))
    }

    /// Whether the program draws the images.
    pub fn is_drawn(&self) -> bool {
        matches!(self.kind, DataKind::Shapes | DataKind::ShapesInverted)
    }

    /// How the files are read.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            size: self.size,
            on_bad_image: self.on_bad_image,
            held_bytes: match self.hold_images {
                None | Some(HoldImages::Auto) => memory::bytes_for_images(),
                Some(HoldImages::Always) => u64::MAX,
                Some(HoldImages::Never) => 0,
            },
            checks: cache::folder(),
        }
    }

    /// Loads the data set, and prints notices of what its files are. `seed` matters only if the
    /// program draws the images.
    ///
    /// # Errors
    /// As [`crate::data::load_with`].
    pub fn load(&self, seed: u64) -> Result<Dataset> {
        let dataset = data_cache::load(self.kind, self.dir().as_deref(), seed, &self.options())?;
        for line in dataset.findings.notices() {
            one_notice(&line);
        }
        Ok(dataset)
    }

    /// The factor of channel counts that suits the data.
    fn default_width(&self) -> f64 {
        if self.is_drawn() { 0.25 } else { 1.0 }
    }
}

/// How a network's images are normalised. The heading of its help is that of the struct that
/// flattens it.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct NormalizationSetting {
    /// Mean and standard deviation that normalise pixels from 0 to 1: those of cifar10, of imagenet
    /// (for torchvision's weights), none, or numbers, one or three each, such as 0.5/0.25. Weights
    /// that this program wrote require the normalisation stored in their file [default: that of the
    /// file, otherwise cifar10]
    #[arg(long = "normalize", value_name = "cifar10|imagenet|none|MEAN/STD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
}

/// The network that a run trains.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Encoder")]
pub struct EncoderSettings {
    /// The encoder
    #[arg(long, value_name = ARCHS, default_value = "resnet18")]
    pub arch: Arch,

    /// Multiplies every channel count [default: 0.25 on shapes, else 1]
    #[arg(long, default_value = "1", value_parser = positive)]
    pub width: f64,

    /// The first layers: cifar (3 x 3, for small images), or imagenet (7 x 7 with stride 2, then a
    /// max-pool; 1/15 of the operations) [default: cifar; imagenet for rotnet with --protocol
    /// paper]
    #[arg(long, value_name = "cifar|imagenet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemName>,
}

/// A stem of `--stem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StemName {
    // The configuration of a run has the stem with its padding.
    #[value(aliases = ["cifar, padding 0", "cifar, padding 1"])]
    Cifar,
    #[value(name = "imagenet")]
    ImageNet,
}

const ARCHS: &str = "resnet18|resnet34|resnet50";

impl EncoderSettings {
    fn complete(&mut self, common: &Common, given: Given<'_>) {
        replace(given("width"), &mut self.width, common.data.default_width());
    }

    /// Whether the stem was asked for and is that of ImageNet.
    pub(in crate::runs) fn has_imagenet_stem(&self) -> bool {
        self.stem == Some(StemName::ImageNet)
    }

    /// The network. The padding of the stem for small images is 1.
    ///
    /// # Errors
    /// `Error::Usage` if no network can have the width.
    pub fn config(&self) -> Result<ResNetConfig> {
        let config = ResNetConfig {
            arch: self.arch,
            stem: if self.has_imagenet_stem() {
                Stem::ImageNet
            } else {
                Stem::Cifar { padding: 1 }
            },
            width: self.width,
        };
        config.shape()?;
        Ok(config)
    }
}

/// The encoder of a run that starts from one or evaluates it.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct PretrainedEncoder {
    /// The encoder: a file written by a training
    #[arg(long = "encoder", value_name = "FILE")]
    #[serde(serialize_with = "shown")]
    pub init: PathBuf,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: NormalizationSetting,
}
