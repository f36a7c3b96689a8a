//! The result of a backward pass.

use std::collections::HashMap;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::elementwise::Accumulate;
use crate::tensor::Tensor;

/// One gradient per leaf.
#[derive(Debug)]
pub struct Gradients {
    /// For the id of each leaf, its gradient under each shape with which it was used.
    by_leaf: HashMap<u64, Vec<Tensor>>,
    scale: f32,
}

/// Receives the id of a leaf and its gradient, as soon as it is complete.
pub(crate) type Completed<'a> = &'a mut dyn FnMut(u64, &Tensor) -> Result<()>;

impl Gradients {
    pub(super) fn new(scale: f32) -> Self {
        Gradients {
            by_leaf: HashMap::new(),
            scale,
        }
    }

    /// The gradient of a leaf, or `None` if the loss does not depend on it under this shape.
    pub fn of(&self, leaf: &Tensor) -> Option<&Tensor> {
        let gradients = self.by_leaf.get(&leaf.id())?;
        gradients.iter().find(|g| g.shape() == leaf.shape())
    }

    /// The loss scale of the tape. The gradients are multiplied by it; an optimiser divides by it.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// All gradients, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_leaf.values().filter_map(|shapes| shapes.first())
    }

    /// Replaces the gradient of a leaf, under all shapes with which it was used. A leaf without
    /// gradient remains without.
    ///
    /// # Errors
    /// `Error::Shape` if the number of elements differs.
    pub fn set(&mut self, leaf: &Tensor, gradient: &Tensor) -> Result<()> {
        for known in self.by_leaf.get_mut(&leaf.id()).into_iter().flatten() {
            *known = gradient.reshape(known.shape())?;
        }
        Ok(())
    }

    /// Adds the gradients of another backward pass, leaf by leaf.
    ///
    /// # Errors
    /// `Error::Device` if memory is short; `Error::Usage` if the loss scales differ.
    pub fn add(&mut self, device: &Device, other: Gradients) -> Result<()> {
        self.check_scale(other.scale)?;
        for (leaf, added) in other.by_leaf {
            self.add_leaf(device, leaf, &added)?;
        }
        Ok(())
    }

    /// Fails unless gradients with this loss scale can be added.
    pub(super) fn check_scale(&self, scale: f32) -> Result<()> {
        if scale == self.scale {
            return Ok(());
        }
        Err(Error::usage(format!(
            "gradients with the loss scales {scale} and {} cannot be added; use one loss scale for both passes",
            self.scale
        )))
    }

    /// Adds a gradient of one leaf, which is given under each shape with which the leaf was used, and
    /// returns the sum.
    pub(super) fn add_leaf(
        &mut self,
        device: &Device,
        leaf: u64,
        added: &[Tensor],
    ) -> Result<Tensor> {
        let own = self.by_leaf.remove(&leaf).unwrap_or_default();
        let mut shapes: Vec<Vec<usize>> = Vec::new();
        for gradient in own.iter().chain(added) {
            if shapes.iter().all(|shape| shape != gradient.shape()) {
                shapes.push(gradient.shape().to_vec());
            }
        }
        let first = added[0].reshape(&shapes[0])?;
        let sum = accumulate(device, own.into_iter().next(), first)?;
        let all = shapes.iter().map(|shape| sum.reshape(shape));
        self.by_leaf.insert(leaf, all.collect::<Result<_>>()?);
        Ok(sum)
    }
}

/// Returns `gradient`, added to `sum` if there is one.
pub(super) fn accumulate(device: &Device, sum: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match sum {
        None => Ok(gradient),
        Some(sum) => device.run(Accumulate { sum, x: &gradient }),
    }
}
