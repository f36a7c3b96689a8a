//! A named tensor of a network: a learned parameter, or a buffer such as a running mean.

use crate::device::{Device, upload_f32};
use crate::error::Result;
use crate::tensor::Tensor;

/// A named tensor. Clones share the tensor, which optimisers and loading change in place.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// As torchvision names it, for example `layer1.0.conv1.weight`.
    pub name: String,
    pub value: Tensor,
}

impl Parameter {
    /// A parameter with these values on `device`.
    pub fn new(device: &Device, name: String, values: &[f32], shape: &[usize]) -> Result<Self> {
        let value = upload_f32(device, values, shape)?;
        Ok(Parameter { name, value })
    }
}
