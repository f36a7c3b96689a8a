//! Settings of the commands that evaluate a network.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    ARCHS, Common, EncoderSettings, Given, NormalizationSetting, PretrainedEncoder, replace, shown,
    shown_if_any,
};
use crate::evaluate::attack::Method;
use crate::evaluate::knn::Vote;
use crate::nn::Arch;
use crate::objectives::Protocol;
use crate::runs::attack::MatchClasses;
use crate::runs::values::{count, fraction, knn_temperature, positive, whole};

/// A linear evaluation on the data set of the pretraining.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Linear {
    /// The encoder: a file written by a training
    #[arg(
        long = "encoder",
        value_name = "FILE",
        required_unless_present = "untrained"
    )]
    #[serde(
        serialize_with = "shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub init: Option<PathBuf>,

    /// Evaluate a network with random weights, the baseline for trained encoders. Its running
    /// statistics are estimated on training images
    #[arg(long, conflicts_with = "init")]
    pub untrained: bool,

    /// The network of --untrained [default: resnet18]
    #[arg(long, value_name = ARCHS, conflicts_with = "init")]
    pub arch: Option<Arch>,

    /// Multiplies every channel count of --untrained [default: 0.25 on shapes, else 1]
    #[arg(long, conflicts_with = "init", value_parser = positive)]
    pub width: Option<f64>,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: NormalizationSetting,

    #[command(flatten)]
    pub training: LinearTraining,
}

impl Linear {
    pub(in crate::runs) fn complete(&mut self, common: &Common, given: Given<'_>) {
        self.training.complete(given);
        if self.untrained {
            self.arch.get_or_insert(Arch::ResNet18);
            self.width.get_or_insert(common.data.default_width());
        }
    }

    /// The network of an evaluation of random weights.
    pub fn network(&self) -> Option<EncoderSettings> {
        Some(EncoderSettings {
            arch: self.arch?,
            width: self.width?,
            stem: None,
        })
    }
}

/// A linear evaluation on another data set than that of the pretraining.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct Transfer {
    #[command(flatten)]
    #[serde(flatten)]
    pub pretrained: PretrainedEncoder,

    #[command(flatten)]
    pub training: LinearTraining,
}

/// An update rule of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LinearRule {
    Adam,
    // The configuration of a run has the optimiser's name in full.
    #[value(alias = "sgd-nesterov")]
    Sgd,
}

/// How a linear layer is trained.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct LinearTraining {
    /// Fraction of the training labels to use, the same for each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    pub labels: f64,

    /// adam (learning rate 0.001), or sgd (Nesterov momentum 0.9, learning rate 0.1 with a cosine
    /// schedule)
    #[arg(long, value_name = "adam|sgd", default_value = "adam")]
    pub optimizer: LinearRule,

    /// Passes over the labelled images [default: 10 with adam, 100 with sgd]
    #[arg(long, default_value = "10", value_parser = whole::<u64>(1..=100_000))]
    pub epochs: u64,

    /// Images per step; all labelled ones if there are fewer
    #[arg(long, default_value = "128", value_parser = count::<usize>)]
    pub batch_size: usize,

    /// Crop and mirror the training images at random. Features are then computed again in every
    /// epoch
    #[arg(long)]
    pub augment: bool,

    /// Side in pixels of the encoder's input images. The shorter side is resized and the centre is
    /// cropped [default: the images' own size]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<usize>(4..=1024))]
    pub resolution: Option<usize>,
}

impl LinearTraining {
    pub(in crate::runs) fn complete(&mut self, given: Given<'_>) {
        if !self.is_adam() {
            replace(given("epochs"), &mut self.epochs, 100);
        }
    }

    pub fn is_adam(&self) -> bool {
        self.optimizer == LinearRule::Adam
    }
}

/// An attack on a classifier.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Attack {
    /// The classifier: a model.safetensors that supervised or finetune wrote
    #[arg(long = "model", value_name = "FILE")]
    #[serde(serialize_with = "shown")]
    pub init: PathBuf,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: NormalizationSetting,

    #[command(flatten)]
    pub attack: AttackSettings,
}

/// An attack of `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AttackName {
    Fgsm,
    Pgd,
}

impl fmt::Display for AttackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttackName::Fgsm => "fgsm",
            AttackName::Pgd => "pgd",
        })
    }
}

/// Settings of an attack.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Attack")]
pub struct AttackSettings {
    /// The attack
    #[arg(long, value_name = "fgsm|pgd", default_value = "pgd")]
    pub method: AttackName,

    /// Number of PGD steps
    #[arg(long, default_value = "10", value_parser = whole::<u32>(1..=10_000))]
    pub iterations: u32,

    /// Strengths of the attack: fine (ten from 0 to 8/255), paper (ten from 0 to 0.275), or a list
    /// such as 0,0.01,8/255. Units are pixel values from 0 to 1, or normalised ones with --protocol
    /// paper [default: fine; paper with --protocol paper]
    #[arg(
        long,
        value_name = "fine|paper|NUMBERS",
        default_value = "fine",
        allow_hyphen_values = true
    )]
    pub eps: String,

    /// Fraction of the test images to attack, the same for each class
    #[arg(long = "images", value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    pub fraction: f64,

    /// How the data set's classes are matched with the classifier's: name, or order, which ignores
    /// their names
    #[arg(long, value_name = "name|order", default_value = "name")]
    pub match_classes_by: MatchClasses,

    /// Write the adversarial images of the last eps, with the labels, to adversarial.safetensors in
    /// the run folder
    #[arg(long)]
    pub save: bool,
}

impl AttackSettings {
    pub fn method(&self) -> Method {
        match self.method {
            AttackName::Fgsm => Method::Fgsm,
            AttackName::Pgd => Method::Pgd {
                iterations: self.iterations,
            },
        }
    }
}

impl Attack {
    pub(in crate::runs) fn complete(&mut self, common: &Common, given: Given<'_>) {
        if common.protocol == Protocol::Paper {
            replace(given("eps"), &mut self.attack.eps, "paper".to_string());
        }
    }
}

/// A nearest-neighbour evaluation.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Knn {
    /// Side in pixels of the encoder's input images. The shorter side is resized and the centre is
    /// cropped [default: the images' own size]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<usize>(4..=1024))]
    pub resolution: Option<usize>,

    #[command(flatten)]
    #[serde(flatten)]
    pub pretrained: PretrainedEncoder,

    #[command(flatten)]
    pub knn: KnnSettings,
}

/// How neighbours vote.
#[derive(Args, Clone, Copy, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Knn")]
pub struct KnnSettings {
    /// Neighbours that vote [default: a tenth of the training images, at most 200]
    #[arg(long, value_name = "COUNT", value_parser = count::<usize>)]
    pub k: Option<usize>,

    /// Temperature T of the vote: a neighbour of cosine similarity s has the weight exp(s / T)
    #[arg(long = "knn-temperature", value_name = "NUMBER", default_value = "0.5", value_parser = knn_temperature)]
    pub temperature: f64,
}

impl From<KnnSettings> for Vote {
    fn from(KnnSettings { k, temperature }: KnnSettings) -> Self {
        Vote { k, temperature }
    }
}
