//! A convolution without bias, with Kaiming normal initialisation by fan-out.

use super::{ConvShape, Module, Parameter, init};
use crate::autograd::Var;
use crate::device::{Device, check_elements};
use crate::error::Result;
use crate::ops::batch_norm::{Activation, ChannelNorm};
use crate::ops::conv2d::Conv2dOptions;

/// A convolution with a square kernel and without bias. The batch norm that follows has a bias.
#[derive(Debug)]
pub struct Conv2d {
    weight: Parameter,
    options: Conv2dOptions,
}

impl Conv2d {
    /// A layer of this shape. `seed` determines the weight.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn new(shape: &ConvShape, seed: u64, device: &Device) -> Result<Self> {
        let name = format!("{}.weight", shape.name);
        let w_shape = shape.weight();
        check_elements("conv2d", &w_shape)?;
        let values = init::kaiming_normal_fan_out(seed, &name, w_shape);
        Ok(Conv2d {
            weight: Parameter::new(name, &values, &w_shape, device)?,
            options: Conv2dOptions {
                stride: shape.stride,
                padding: shape.padding,
            },
        })
    }

    /// The convolution followed by `norm` and `activation`. All parameters are constants.
    pub(super) fn forward_normalized(
        &self,
        x: &Var,
        norm: &ChannelNorm,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        let weight = x.parameter(&self.weight);
        x.conv2d_batch_norm((weight.tensor(), self.options), norm, activation)
    }
}

impl Module for Conv2d {
    /// `[N, C, H, W]` to `[N, O, OH, OW]`.
    fn forward(&self, x: &Var) -> Result<Var> {
        x.conv2d(&x.parameter(&self.weight), self.options)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        vec![&self.weight]
    }
}
