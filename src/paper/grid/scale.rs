//! The scale of the grid: the paper's own, or a reduced one.

use std::fmt;
use std::str::FromStr;

use super::Source;
use crate::error::{Error, Result};
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::paper::numbers::{FULL_STEPS, TENTHS, TRANSFERRED_TENTHS};

/// A size of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Runs every code path once, on images that the program draws.
    Smoke,
    /// Runs every cell of the grid on real images, with less training.
    Small,
    /// The paper's own scale.
    Paper,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scale::Smoke => "smoke",
            Scale::Small => "small",
            Scale::Paper => "paper",
        })
    }
}

impl FromStr for Scale {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "smoke" => Ok(Scale::Smoke),
            "small" => Ok(Scale::Small),
            "paper" => Ok(Scale::Paper),
            _ => Err(Error::usage(format!(
                "scale '{word}' is neither smoke, small nor paper"
            ))),
        }
    }
}

/// The numbers of a scale. Batch sizes, eps and iterations are the paper's at every scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Factor of the channel counts of every network.
    pub width: f64,
    /// Steps of the longest pretraining (5,000 in the paper). A multiple of ten.
    pub full_steps: u64,
    /// Tenths of `full_steps` after which the encoders of Table 1 are fine-tuned (2 in the paper).
    pub finetuned_tenths: u64,
    /// Lengths of the supervised trainings, or `None` for the paper's epochs.
    pub supervised: Option<SupervisedSteps>,
    /// Training images of a linear evaluation, the same number for each class. `None` means all.
    pub linear_images: Option<usize>,
    /// Test images that are attacked, the same number for each class. `None` means all.
    pub attack_images: Option<usize>,
    /// Test images on which RotNet's rotation accuracy is measured. `None` means all.
    pub rotation_images: Option<usize>,
}

/// Steps of the supervised trainings, which replace the paper's epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupervisedSteps {
    /// Maximum steps of fine-tuning on 1, 10 and 50 % of the labels.
    pub finetune: [u64; 3],
    /// Maximum steps from scratch on the same fractions.
    pub baseline: [u64; 3],
    /// Steps of the baseline on all labels, which attacks and transfer use. Not fewer than the
    /// steps after which it is transferred.
    pub all_labels: u64,
    /// Fine-tuning and baselines stop early if the mean loss of this many steps is not below the
    /// mean of the same number of steps before. Longer windows are less likely to stop on noise.
    pub flat_window: u64,
}

/// Numbers that replace those of a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    pub full_steps: Option<u64>,
    pub width: Option<f64>,
    pub attack_images: Option<usize>,
    pub linear_images: Option<usize>,
}

impl Sizes {
    pub fn of(scale: Scale) -> Self {
        match scale {
            Scale::Smoke => Sizes {
                width: 0.0625,
                full_steps: 10,
                finetuned_tenths: 2,
                supervised: Some(SupervisedSteps {
                    finetune: [5, 10, 20],
                    baseline: [20, 20, 20],
                    all_labels: 20,
                    flat_window: 10,
                }),
                linear_images: Some(500),
                attack_images: Some(50),
                rotation_images: Some(50),
            },
            Scale::Small => Sizes {
                width: 0.25,
                full_steps: 500,
                finetuned_tenths: 4,
                supervised: Some(SupervisedSteps {
                    finetune: [420, 1_000, 1_500],
                    baseline: [1_000, 1_500, 2_000],
                    all_labels: 2_000,
                    flat_window: 100,
                }),
                linear_images: Some(10_000),
                attack_images: Some(500),
                rotation_images: Some(1_000),
            },
            Scale::Paper => Sizes {
                width: 1.0,
                full_steps: FULL_STEPS,
                finetuned_tenths: 2,
                supervised: None,
                linear_images: None,
                attack_images: None,
                rotation_images: None,
            },
        }
    }

    /// Returns these sizes with the numbers of `overrides` in place of theirs.
    ///
    /// # Errors
    /// `Error::Usage` if `full_steps` is 0 or not a multiple of ten, or if no network can have the
    /// width.
    pub fn with(self, overrides: Overrides) -> Result<Self> {
        let full_steps = overrides.full_steps.unwrap_or(self.full_steps);
        if full_steps == 0 || !full_steps.is_multiple_of(TENTHS) {
            return Err(Error::usage(format!(
                "the full number of steps is {full_steps}; use a positive multiple of {TENTHS}, since \
                 checkpoints are tenths of it"
            )));
        }
        let mut sizes = Sizes {
            width: overrides.width.unwrap_or(self.width),
            full_steps,
            attack_images: overrides.attack_images.or(self.attack_images),
            linear_images: overrides.linear_images.or(self.linear_images),
            ..self
        };
        for arch in [Arch::ResNet18, Arch::ResNet50] {
            let stem = Stem::Cifar { padding: 1 };
            let width = sizes.width;
            ResNetConfig { arch, stem, width }.shape()?;
        }
        let transferred = sizes.steps(TRANSFERRED_TENTHS);
        if let Some(steps) = &mut sizes.supervised {
            steps.all_labels = steps.all_labels.max(transferred);
        }
        Ok(sizes)
    }

    /// Returns the number of steps at `tenths` of the longest pretraining.
    pub fn steps(&self, tenths: u64) -> u64 {
        self.full_steps * tenths / TENTHS
    }

    /// Returns the differences from the paper, one line each.
    pub fn differences(&self, first: &Source, second: &Source) -> Vec<String> {
        let mut lines = Vec::new();
        let mut note = |differs: bool, line: String| lines.extend(differs.then_some(line));
        note(
            self.width != 1.0,
            format!(
                "width of every network: {} of the paper's channels",
                self.width
            ),
        );
        note(
            self.full_steps != FULL_STEPS,
            format!(
                "pretraining steps: {} for the paper's 5,000, checkpoints at the same fractions",
                self.full_steps
            ),
        );
        note(
            self.steps(self.finetuned_tenths) != 1_000,
            format!(
                "encoders of Table 1: pretrained for {} steps instead of the paper's 1,000",
                self.steps(self.finetuned_tenths)
            ),
        );
        if let Some(steps) = &self.supervised {
            let list = |[one, ten, fifty]: [u64; 3]| format!("{one}, {ten} and {fifty}");
            note(
                true,
                format!(
                    "fine-tuning on 1, 10 and 50 % of the labels: at most {} steps instead of the \
                     paper's 60, 30 and 20 epochs; stops when the mean loss of {} steps no longer falls",
                    list(steps.finetune),
                    steps.flat_window
                ),
            );
            note(
                true,
                format!(
                    "baseline from scratch on 1, 10 and 50 % of the labels: at most {} steps instead of \
                     the paper's 500 epochs; stops by the same rule",
                    list(steps.baseline)
                ),
            );
            note(
                true,
                format!(
                    "supervised baseline of attacks and transfer: {} steps instead of the paper's 60 \
                     epochs; transferred after {} steps instead of 2,000",
                    steps.all_labels,
                    self.steps(TRANSFERRED_TENTHS)
                ),
            );
        }
        for source in [first, second] {
            note(
                part(self.linear_images, source.train) < 1.0,
                format!(
                    "training images of a linear evaluation on {}: {} of {}, the same number of each class",
                    source.name,
                    self.linear_images.unwrap_or(source.train),
                    source.train
                ),
            );
        }
        for (wanted, what) in [
            (self.attack_images, "attacked test images"),
            (
                self.rotation_images,
                "test images for RotNet's rotation accuracy",
            ),
        ] {
            note(
                part(wanted, first.test) < 1.0,
                format!(
                    "{what}: {} of {}, the same number of each class",
                    wanted.unwrap_or(first.test),
                    first.test
                ),
            );
        }
        lines
    }
}

/// Returns `wanted` as a fraction of `all` images: 1 if it is `None`, or at least `all`.
pub(super) fn part(wanted: Option<usize>, all: usize) -> f64 {
    match wanted {
        Some(wanted) if wanted < all => wanted as f64 / all as f64,
        _ => 1.0,
    }
}

/// Returns the number of images that the fraction `part` of `all` images is.
pub(super) fn images(part: f64, all: usize) -> usize {
    (part * all as f64).round() as usize
}
