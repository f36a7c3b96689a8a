//! A linear layer with bias, initialised as in torch.

use super::{Module, Parameter, init};
use crate::autograd::Var;
use crate::device::{Device, check_elements};
use crate::error::Result;

/// `y = x w^T + bias`
#[derive(Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// A layer with weight `[outputs, inputs]` and bias `[outputs]`, which are named `NAME.weight`
    /// and `NAME.bias`. `seed` determines their values.
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
            let count = check_elements("linear", shape)?;
            let values = init::linear_uniform(seed, &name, count, inputs);
            Parameter::new(name, &values, shape, device)
        };
        Ok(Linear {
            weight: drawn("weight", &[outputs, inputs])?,
            bias: drawn("bias", &[outputs])?,
        })
    }

    /// The number of scalar parameters of a layer of this size.
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
