//! A linear layer with bias, started as torch starts it.

use super::{Parameter, init};
use crate::autograd::{self, Tape, Var};
use crate::device::Device;
use crate::error::Result;

/// `y = x w^T + bias`.
#[derive(Debug)]
pub struct Linear {
    name: String,
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// Weight `[outputs, inputs]` and bias `[outputs]`, drawn by `seed` under the names `NAME.weight` and `NAME.bias`.
    pub fn new(
        device: &Device,
        name: &str,
        inputs: usize,
        outputs: usize,
        seed: u64,
    ) -> Result<Self> {
        let drawn = |what: &str, shape: &[usize]| {
            let name = format!("{name}.{what}");
            let values = init::linear_uniform(seed, &name, shape.iter().product(), inputs);
            Parameter::new(device, name, &values, shape)
        };
        Ok(Linear {
            name: name.to_string(),
            weight: drawn("weight", &[outputs, inputs])?,
            bias: drawn("bias", &[outputs])?,
        })
    }

    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, tape: &Tape, x: &Var) -> Result<Var> {
        tape.enter_layer(&self.name);
        let weight = tape.leaf(&self.weight.value);
        let bias = tape.leaf(&self.bias.value);
        autograd::linear(tape, x, &weight, &bias)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> [&Parameter; 2] {
        [&self.weight, &self.bias]
    }
}
