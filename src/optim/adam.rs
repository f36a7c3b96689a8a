//! Adam (Kingma and Ba 2015), as `torch.optim.Adam`: weight decay is part of the gradient.

use super::{gradients_of, zeros_like};
use crate::autograd::Gradients;
use crate::device::Device;
use crate::device::kernels::AdamStep;
use crate::error::Result;
use crate::nn::Parameter;
use crate::tensor::Tensor;

/// What stays the same over a training run. The learning rate is given with each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamOptions {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Added to the gradient as `weight_decay * parameter`.
    pub weight_decay: f32,
}

impl Default for AdamOptions {
    /// torch's: 0.9, 0.999, 1e-8, no weight decay.
    fn default() -> Self {
        AdamOptions {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// Adam over a fixed list of parameters, with two moments for each on their device.
pub struct Adam {
    device: Device,
    options: AdamOptions,
    parameters: Vec<Parameter>,
    first_moments: Vec<Parameter>,
    second_moments: Vec<Parameter>,
    steps: u32,
}

impl Adam {
    /// An optimiser that has taken no step. The parameters are shared, not copied.
    ///
    /// # Errors
    /// `Error::Device` where memory for the moments is short.
    pub fn new(device: &Device, parameters: &[&Parameter], options: AdamOptions) -> Result<Self> {
        Ok(Adam {
            device: device.clone(),
            options,
            parameters: parameters.iter().map(|&p| p.clone()).collect(),
            first_moments: zeros_like(device, parameters, "first_moment")?,
            second_moments: zeros_like(device, parameters, "second_moment")?,
            steps: 0,
        })
    }

    /// Moves every parameter, unless `gate` (u32 `[1]`) is set on the device: then parameters and moments keep their
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
        let step = AdamStep {
            learning_rate,
            beta1: self.options.beta1,
            beta2: self.options.beta2,
            eps: self.options.eps,
            weight_decay: self.options.weight_decay,
            gradient_scale,
            step: self.steps + 1,
        };
        for (i, gradient) in gradients.into_iter().enumerate() {
            self.device.adam_step(
                step,
                &self.parameters[i].value,
                gradient,
                &self.first_moments[i].value,
                &self.second_moments[i].value,
                gate,
            )?;
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

    /// The moments, named `first_moment.NAME` and `second_moment.NAME`: what a checkpoint has to keep beside the number
    /// of steps.
    pub fn state(&self) -> Vec<&Parameter> {
        self.first_moments
            .iter()
            .chain(&self.second_moments)
            .collect()
    }
}
