//! A linear layer with bias, initialised as in torch.

use super::{Module, Parameter, init};
use crate::autograd::Var;
use crate::device::Device;
use crate::error::Result;

/// `y = x w^T + bias`
#[derive(Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// Weight `[outputs, inputs]` and bias `[outputs]`, drawn with `seed` under the names `NAME.weight`
    /// and `NAME.bias`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn new(
        name: &str,
        inputs: usize,
        outputs: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let drawn = |what: &str, shape: &[usize]| {
            let name = format!("{name}.{what}");
            let values = init::linear_uniform(seed, &name, shape.iter().product(), inputs);
            Parameter::new(name, &values, shape, device)
        };
        Ok(Linear {
            weight: drawn("weight", &[outputs, inputs])?,
            bias: drawn("bias", &[outputs])?,
        })
    }

    /// The number of learned numbers of such a layer.
    pub fn parameter_count(inputs: usize, outputs: usize) -> usize {
        (inputs + 1) * outputs
    }
}

impl Module for Linear {
    /// `[N, inputs]` to `[N, outputs]`.
    fn forward(&self, x: &Var) -> Result<Var> {
        x.linear(&x.parameter(&self.weight), &x.parameter(&self.bias))
    }

    fn parameters(&self) -> Vec<&Parameter> {
        vec![&self.weight, &self.bias]
    }
}
