//! SimCLR's projector: what stands between the encoder's features and the contrastive loss, and is dropped afterwards.

use super::{Linear, Parameter};
use crate::autograd::{self, Tape, Var};
use crate::device::Device;
use crate::error::Result;

/// Numbers in a projection.
pub(super) const PROJECTION_WIDTH: usize = 128;

/// Linear F -> F, ReLU, linear F -> 128, with biases and without batch norm. Named as a torch `Sequential`:
/// `projector.0.weight`, `projector.2.bias`.
#[derive(Debug)]
pub struct Projector {
    hidden: Linear,
    output: Linear,
}

impl Projector {
    /// A projector of features of `width` numbers, drawn by `seed`.
    pub fn new(device: &Device, width: usize, seed: u64) -> Result<Self> {
        Ok(Projector {
            hidden: Linear::new(device, "projector.0", width, width, seed)?,
            output: Linear::new(device, "projector.2", width, PROJECTION_WIDTH, seed)?,
        })
    }

    /// Features `[N, F]` to projections `[N, 128]`, not normalised.
    pub fn forward(&self, tape: &Tape, features: &Var) -> Result<Var> {
        let hidden = self.hidden.forward(tape, features)?;
        let hidden = autograd::relu(tape, &hidden)?;
        self.output.forward(tape, &hidden)
    }

    /// In the order of the layers.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let layers = [&self.hidden, &self.output];
        layers.into_iter().flat_map(Linear::parameters).collect()
    }

    /// Inputs and outputs of its linear layers, for features of `width` numbers.
    pub fn layers(width: usize) -> [[usize; 2]; 2] {
        [[width, width], [width, PROJECTION_WIDTH]]
    }

    /// The number of learned numbers of a projector of features of `width` numbers.
    pub fn parameter_count(width: usize) -> usize {
        let layers = Self::layers(width);
        layers.iter().map(|[i, o]| (i + 1) * o).sum()
    }
}
