//! The result of a backward pass.

use std::collections::HashMap;

use super::tape::{LeafKey, leaf_key};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::elementwise::Accumulate;
use crate::tensor::Tensor;

/// One gradient per leaf.
#[derive(Debug)]
pub struct Gradients {
    by_leaf: HashMap<LeafKey, Tensor>,
    scale: f32,
}

impl Gradients {
    pub(super) fn new(by_leaf: HashMap<LeafKey, Tensor>, scale: f32) -> Self {
        Gradients { by_leaf, scale }
    }

    /// The gradient of a leaf, or `None` if the loss does not depend on it.
    pub fn of(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_leaf.get(&leaf_key(leaf))
    }

    /// The loss scale of the tape. The gradients are multiplied by it; an optimiser divides by it.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// All gradients, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_leaf.values()
    }

    /// Adds the gradients of another backward pass, leaf by leaf.
    ///
    /// # Errors
    /// `Error::Device` if memory is short; `Error::Usage` if the loss scales differ.
    pub fn add(&mut self, device: &Device, other: Gradients) -> Result<()> {
        if other.scale != self.scale {
            return Err(Error::usage(format!(
                "gradients with the loss scales {} and {} cannot be added; use one loss scale for both passes",
                other.scale, self.scale
            )));
        }
        for (key, gradient) in other.by_leaf {
            let sum = accumulate(device, self.by_leaf.remove(&key), gradient)?;
            self.by_leaf.insert(key, sum);
        }
        Ok(())
    }
}

/// Returns `gradient`, added to `sum` if there is one.
pub(super) fn accumulate(device: &Device, sum: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match sum {
        None => Ok(gradient),
        Some(sum) => device.run(Accumulate { sum, x: &gradient }),
    }
}
