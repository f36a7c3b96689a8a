//! How large the grid is run: the paper's own size, or parts of it.

use std::fmt;
use std::str::FromStr;

use super::Source;
use crate::error::{Error, Result};

/// A size of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Every path once, on images that the program draws.
    Smoke,
    /// Every cell of the grid on real images, with less training.
    Small,
    /// The paper's own.
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

/// Steps of the paper's longest pretraining.
const PAPER_STEPS: u64 = 5_000;

/// The numbers of a scale. Batch sizes, label fractions, eps and iterations are the paper's at every scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    pub width: f64,
    /// Steps that stand for the paper's 5,000; a multiple of ten.
    pub full_steps: u64,
    /// Fine-tuning takes the paper's number of updates divided by this.
    pub finetune_divisor: u64,
    /// The most updates of the baseline on 1, 10 and 50 % of the labels, which ends before where its loss stops
    /// falling; none for the paper's 500 epochs.
    pub baseline_steps: Option<[u64; 3]>,
    /// Updates of the baseline on all labels; none for its 60 epochs.
    pub supervised_steps: Option<u64>,
    /// The part of the training images that a linear evaluation trains on, the same of each class.
    pub linear_part: f64,
    /// The part of the test images that is attacked, the same of each class.
    pub attack_part: f64,
    /// The part of the test images on which RotNet's rotations are told, the same of each class.
    pub rotation_part: f64,
}

/// The number of `all` images that a part of them is.
pub fn images(part: f64, all: usize) -> usize {
    (part * all as f64).round() as usize
}

impl Sizes {
    pub fn of(scale: Scale) -> Self {
        match scale {
            Scale::Smoke => Sizes {
                width: 0.0625,
                full_steps: 10,
                finetune_divisor: 100,
                baseline_steps: Some([20, 20, 20]),
                supervised_steps: Some(20),
                linear_part: 0.125,
                attack_part: 0.05,
                rotation_part: 0.05,
            },
            Scale::Small => Sizes {
                width: 0.25,
                full_steps: 10,
                finetune_divisor: 60,
                baseline_steps: Some([75, 100, 125]),
                supervised_steps: Some(200),
                linear_part: 0.2,
                attack_part: 0.1,
                rotation_part: 0.1,
            },
            Scale::Paper => Sizes {
                width: 1.0,
                full_steps: PAPER_STEPS,
                finetune_divisor: 1,
                baseline_steps: None,
                supervised_steps: None,
                linear_part: 1.0,
                attack_part: 1.0,
                rotation_part: 1.0,
            },
        }
    }

    /// What is smaller than in the paper, a line each.
    pub fn shrunk(&self, first: &Source) -> Vec<String> {
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
            self.full_steps != PAPER_STEPS,
            format!(
                "pretraining steps: {} for the paper's 5,000 (1/{}), checkpoints at the same fractions",
                self.full_steps,
                PAPER_STEPS / self.full_steps
            ),
        );
        note(
            self.finetune_divisor != 1,
            format!(
                "fine-tuning updates: 1/{} of the paper's 60, 30 and 20 epochs",
                self.finetune_divisor
            ),
        );
        if let Some([one, ten, fifty]) = self.baseline_steps {
            lines.push(format!(
                "baseline from scratch on 1, 10, 50 % of the labels: as long as its training loss falls, at most {one}, \
                 {ten} and {fifty} updates for the paper's 500 epochs"
            ));
        }
        if let Some(steps) = self.supervised_steps {
            lines.push(format!(
                "supervised baseline of attacks and transfer: {steps} updates for 60 epochs, and its transfer takes it \
                 after {} for the paper's 2,000",
                self.full_steps * 2 / 5
            ));
        }
        for (part, all, what) in [
            (
                self.linear_part,
                first.train,
                "training images of a linear evaluation",
            ),
            (self.attack_part, first.test, "attacked test images"),
            (
                self.rotation_part,
                first.test,
                "test images whose rotations RotNet tells in the end",
            ),
        ] {
            if part < 1.0 {
                lines.push(format!(
                    "{what}: {part} of them, {} of {}'s, the same part of each class",
                    images(part, all),
                    first.name
                ));
            }
        }
        lines
    }
}
