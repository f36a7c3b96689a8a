//! Either optimiser behind one door, and everything that decides how parameters move.

use super::{Adam, AdamOptions, Schedule, Sgd, SgdOptions};
use crate::autograd::Gradients;
use crate::device::Device;
use crate::error::Result;
use crate::nn::Parameter;
use crate::tensor::Tensor;

/// Which optimiser, with what stays the same over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerOptions {
    Adam(AdamOptions),
    Sgd(SgdOptions),
}

impl OptimizerOptions {
    /// SGD with Nesterov momentum 0.9.
    pub fn nesterov(weight_decay: f32) -> Self {
        OptimizerOptions::Sgd(SgdOptions {
            momentum: 0.9,
            nesterov: true,
            weight_decay,
        })
    }

    /// torch's Adam with this weight decay.
    pub fn adam(weight_decay: f32) -> Self {
        OptimizerOptions::Adam(AdamOptions {
            weight_decay,
            ..AdamOptions::default()
        })
    }

    /// What is added to a gradient for each unit of its parameter.
    pub fn weight_decay(&self) -> f32 {
        match self {
            OptimizerOptions::Adam(options) => options.weight_decay,
            OptimizerOptions::Sgd(options) => options.weight_decay,
        }
    }

    /// As configurations name it.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerOptions::Adam(_) => "adam",
            OptimizerOptions::Sgd(options) if options.nesterov => "sgd-nesterov",
            OptimizerOptions::Sgd(_) => "sgd",
        }
    }
}

/// An optimiser, its base learning rate, and how the rate changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimization {
    pub optimizer: OptimizerOptions,
    pub learning_rate: f64,
    pub schedule: Schedule,
}

/// An optimiser of either kind over a fixed list of parameters.
pub enum Optimizer {
    Adam(Adam),
    Sgd(Sgd),
}

impl Optimizer {
    /// An optimiser that has taken no step.
    ///
    /// # Errors
    /// `Error::Device` where memory for its state is short.
    pub fn new(
        device: &Device,
        parameters: &[&Parameter],
        options: OptimizerOptions,
    ) -> Result<Self> {
        Ok(match options {
            OptimizerOptions::Adam(options) => {
                Optimizer::Adam(Adam::new(device, parameters, options)?)
            }
            OptimizerOptions::Sgd(options) => {
                Optimizer::Sgd(Sgd::new(device, parameters, options)?)
            }
        })
    }

    /// As [`Adam::step`] and [`Sgd::step`].
    pub fn step(
        &mut self,
        learning_rate: f32,
        gradients: &Gradients,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        match self {
            Optimizer::Adam(adam) => adam.step(learning_rate, gradients, gate),
            Optimizer::Sgd(sgd) => sgd.step(learning_rate, gradients, gate),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        match self {
            Optimizer::Adam(adam) => adam.steps(),
            Optimizer::Sgd(sgd) => sgd.steps(),
        }
    }

    /// Says how many steps the state has seen, after the state was loaded.
    pub fn resume_at(&mut self, steps: u32) {
        match self {
            Optimizer::Adam(adam) => adam.resume_at(steps),
            Optimizer::Sgd(sgd) => sgd.resume_at(steps),
        }
    }

    /// The moments or momentum buffers: what a checkpoint keeps beside the number of steps.
    pub fn state(&self) -> Vec<&Parameter> {
        match self {
            Optimizer::Adam(adam) => adam.state(),
            Optimizer::Sgd(sgd) => sgd.state(),
        }
    }
}
