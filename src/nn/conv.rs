//! A convolution without bias, its weight started by Kaiming fan-out.

use super::shape::ConvShape;
use super::{Parameter, init};
use crate::autograd::{self, Tape, Var};
use crate::device::Device;
use crate::device::kernels::{Activation, ChannelNorm};
use crate::device::shapes::Conv2d;
use crate::error::Result;

/// A square convolution without bias; the batch norm that follows shifts.
#[derive(Debug)]
pub struct Conv {
    name: String,
    weight: Parameter,
    conv: Conv2d,
}

impl Conv {
    /// The layer that `shape` describes, its weight drawn by `seed`.
    pub fn new(device: &Device, shape: &ConvShape, seed: u64) -> Result<Self> {
        let name = format!("{}.weight", shape.name);
        let w_shape = shape.weight();
        let values = init::kaiming_normal_fan_out(seed, &name, w_shape);
        Ok(Conv {
            name: shape.name.clone(),
            weight: Parameter::new(device, name, &values, &w_shape)?,
            conv: Conv2d {
                stride: shape.stride,
                padding: shape.padding,
            },
        })
    }

    /// `[N, C, H, W]` to `[N, O, OH, OW]`.
    pub fn forward(&self, tape: &Tape, x: &Var) -> Result<Var> {
        tape.enter_layer(&self.name);
        autograd::conv2d(tape, x, &tape.leaf(&self.weight.value), self.conv)
    }

    /// The same, followed by `norm` and `activation` with every parameter a constant.
    pub(super) fn forward_normalized(
        &self,
        tape: &Tape,
        x: &Var,
        norm: &ChannelNorm,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        tape.enter_layer(&self.name);
        let weight = (&self.weight.value, self.conv);
        autograd::conv2d_batch_norm(tape, x, weight, norm, activation)
    }

    pub fn weight(&self) -> &Parameter {
        &self.weight
    }
}
