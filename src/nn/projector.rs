//! The projector of SimCLR: between the features of the encoder and the contrastive loss. It is
//! dropped after pretraining.

use super::{Linear, Module, Parameter, parameters};
use crate::autograd::Var;
use crate::device::Device;
use crate::error::Result;

/// The numbers of a projection.
const PROJECTION_WIDTH: usize = 128;

/// Linear F -> F, ReLU, linear F -> 128, with biases and without batch norm. Named as a torch
/// `Sequential`: `projector.0.weight`, `projector.2.bias`.
#[derive(Debug)]
pub struct Projector {
    hidden: Linear,
    output: Linear,
}

impl Projector {
    /// A projector of features of `width` numbers, drawn with `seed`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn new(width: usize, seed: u64, device: &Device) -> Result<Self> {
        Ok(Projector {
            hidden: Linear::new("projector.0", width, width, seed, device)?,
            output: Linear::new("projector.2", width, PROJECTION_WIDTH, seed, device)?,
        })
    }

    /// Inputs and outputs of the linear layers, for features of `width` numbers.
    pub fn layers(width: usize) -> [[usize; 2]; 2] {
        [[width, width], [width, PROJECTION_WIDTH]]
    }

    /// The number of learned numbers, for features of `width` numbers.
    pub fn parameter_count(width: usize) -> usize {
        let layers = Self::layers(width);
        layers
            .map(|[inputs, outputs]| Linear::parameter_count(inputs, outputs))
            .iter()
            .sum()
    }
}

impl Module for Projector {
    /// Features `[N, F]` to projections `[N, 128]`, not normalised.
    fn forward(&self, features: &Var) -> Result<Var> {
        self.output.forward(&self.hidden.forward(features)?.relu()?)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        parameters([&self.hidden as &dyn Module, &self.output])
    }
}
