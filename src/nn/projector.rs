//! The projector of SimCLR, which maps the features of the encoder to the space of the contrastive
//! loss. It is only used in pretraining.

use super::{Linear, Module, Parameter, parameters};
use crate::autograd::Var;
use crate::device::Device;
use crate::error::Result;

/// Elements of a projection.
const PROJECTION_WIDTH: usize = 128;

/// Linear F -> F, ReLU, linear F -> 128, with biases and without batch norm. The parameters have
/// the names of a torch `Sequential`, such as `projector.0.weight` and `projector.2.bias`.
#[derive(Debug)]
pub struct Projector {
    hidden: Linear,
    output: Linear,
}

impl Projector {
    /// A projector of features `[N, width]`. `seed` determines the weights.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn new(width: usize, seed: u64, device: &Device) -> Result<Self> {
        Ok(Projector {
            hidden: Linear::new("projector.0", width, width, seed, device)?,
            output: Linear::new("projector.2", width, PROJECTION_WIDTH, seed, device)?,
        })
    }

    /// Inputs and outputs of the linear layers, for features `[N, width]`.
    pub fn layers(width: usize) -> [[usize; 2]; 2] {
        [[width, width], [width, PROJECTION_WIDTH]]
    }

    /// The number of scalar parameters, for features `[N, width]`.
    pub fn parameter_count(width: usize) -> usize {
        let layers = Self::layers(width).into_iter();
        let counts = layers.map(|[inputs, outputs]| Linear::parameter_count(inputs, outputs));
        counts.sum()
    }
}

impl Module for Projector {
    /// Maps features `[N, F]` to projections `[N, 128]`, which are not normalised.
    fn forward(&self, features: &Var) -> Result<Var> {
        self.output.forward(&self.hidden.forward(features)?.relu()?)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        parameters([&self.hidden as &dyn Module, &self.output])
    }
}
