//! Copies of tensors in other layouts, which several kernels read until the tensors change.

use std::sync::{Arc, Mutex, MutexGuard};

use super::context::lock;
use crate::tensor::{DType, Tensor};

/// The places of a weight in the source, as `[O, C, KH, KW]`, and in the copy, as
/// `[KH, KW, O, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightPlace {
    /// The first element in the source.
    pub(crate) from: usize,
    /// The first element in the copy, a multiple of 4.
    pub(crate) to: usize,
    /// `O C`, a multiple of 4.
    pub(crate) pairs: usize,
    /// `KH KW`
    pub(crate) taps: usize,
}

/// Copies of the weights of convolutions inside one tensor.
pub(crate) struct PackedCopies {
    pub(crate) source: Tensor,
    /// Of each weight, the first element in `source`, the pairs of an output and an input channel,
    /// and the taps.
    pub(crate) weights: Vec<(usize, [usize; 2])>,
    /// In f32 and in f16.
    forms: [Mutex<Option<PackedForm>>; 2],
}

/// The copies of one element type.
pub(crate) struct PackedForm {
    pub(crate) packed: Tensor,
    /// Of each weight that has a copy.
    pub(crate) places: Vec<Option<WeightPlace>>,
    pub(crate) parts: Tensor,
    /// The version of the source of which they are copies.
    pub(crate) version: Option<u64>,
}

impl PackedCopies {
    pub(crate) fn new(source: Tensor, weights: Vec<(usize, [usize; 2])>) -> Arc<Self> {
        Arc::new(PackedCopies {
            source,
            weights,
            forms: Default::default(),
        })
    }

    pub(crate) fn form(&self, dtype: DType) -> MutexGuard<'_, Option<PackedForm>> {
        lock(&self.forms[usize::from(dtype == DType::F16)])
    }
}
