//! The classifier on top of an encoder.

use super::{Linear, Parameter};
use crate::autograd::{Tape, Var};
use crate::device::Device;
use crate::error::Result;

/// A linear layer from features to class scores, named `fc` as torchvision names it.
#[derive(Debug)]
pub struct Head {
    fc: Linear,
}

impl Head {
    /// A head for features of `width` numbers, drawn by `seed`.
    pub fn new(device: &Device, width: usize, classes: usize, seed: u64) -> Result<Self> {
        Ok(Head {
            fc: Linear::new(device, "fc", width, classes, seed)?,
        })
    }

    /// Features `[N, F]` to logits `[N, classes]`.
    pub fn forward(&self, tape: &Tape, features: &Var) -> Result<Var> {
        self.fc.forward(tape, features)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> Vec<&Parameter> {
        self.fc.parameters().to_vec()
    }

    /// The number of learned numbers of such a head.
    pub fn parameter_count(width: usize, classes: usize) -> usize {
        (width + 1) * classes
    }
}
