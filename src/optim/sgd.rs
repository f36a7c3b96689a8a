//! Stochastic gradient descent with momentum, plain or Nesterov's, as `torch.optim.SGD`.

use super::{gradients_of, zeros_like};
use crate::autograd::Gradients;
use crate::device::Device;
use crate::device::kernels::SgdStep;
use crate::error::Result;
use crate::nn::Parameter;
use crate::tensor::Tensor;

/// What stays the same over a training run. The learning rate is given with each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    pub momentum: f32,
    pub nesterov: bool,
    /// Added to the gradient as `weight_decay * parameter`.
    pub weight_decay: f32,
}

/// SGD over a fixed list of parameters, with a momentum buffer for each on their device.
pub struct Sgd {
    device: Device,
    options: SgdOptions,
    parameters: Vec<Parameter>,
    momentum: Vec<Parameter>,
    steps: u32,
}

impl Sgd {
    /// An optimiser that has taken no step. The parameters are shared, not copied.
    ///
    /// # Errors
    /// `Error::Device` where memory for the momentum is short.
    pub fn new(device: &Device, parameters: &[&Parameter], options: SgdOptions) -> Result<Self> {
        Ok(Sgd {
            device: device.clone(),
            options,
            parameters: parameters.iter().map(|&p| p.clone()).collect(),
            momentum: zeros_like(device, parameters, "momentum")?,
            steps: 0,
        })
    }

    /// Moves every parameter, unless `gate` (u32 `[1]`) is set on the device: then parameters and momentum keep their
    /// values, though the step is counted.
    ///
    /// # Errors
    /// `Error::Usage` naming a parameter without gradient; nothing has changed then.
    pub fn step(
        &mut self,
        learning_rate: f32,
        gradients: &Gradients,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        let gradient_scale = gradients.scale();
        let gradients = gradients_of(&self.parameters, gradients)?;
        let step = SgdStep {
            learning_rate,
            momentum: self.options.momentum,
            nesterov: self.options.nesterov,
            weight_decay: self.options.weight_decay,
            gradient_scale,
            first: self.steps == 0,
        };
        let state = self.parameters.iter().zip(&self.momentum);
        for ((parameter, momentum), gradient) in state.zip(gradients) {
            self.device
                .sgd_step(step, &parameter.value, gradient, &momentum.value, gate)?;
        }
        self.steps += 1;
        Ok(())
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Says how many steps the state has seen, after the state was loaded.
    pub fn resume_at(&mut self, steps: u32) {
        self.steps = steps;
    }

    /// The momentum buffers, named `momentum.NAME`: what a checkpoint has to keep beside the number of steps.
    pub fn state(&self) -> Vec<&Parameter> {
        self.momentum.iter().collect()
    }
}
