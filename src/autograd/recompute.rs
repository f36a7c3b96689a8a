//! Values that operations save for their backward pass: tensors, or recomputations of them.

use std::cell::RefCell;
use std::rc::Rc;

use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// A value as an operation saves it for its backward pass.
#[derive(Clone)]
pub(crate) enum Saved {
    Tensor(Tensor),
    Recompute(Rc<Recompute>),
}

impl Saved {
    /// The value, recomputed if it was not kept.
    pub(crate) fn tensor(&self, device: &Device) -> Result<Tensor> {
        self.clone().into_tensor(device)
    }

    /// The value, for its last use here: nothing in the operation shares it afterwards.
    pub(crate) fn into_tensor(self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor),
            Saved::Recompute(value) => value.tensor(device, true),
        }
    }

    /// The value, if it is only needed to recompute another one.
    pub(crate) fn intermediate(&self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor.clone()),
            Saved::Recompute(value) => value.tensor(device, value.depth % KEPT == 0),
        }
    }

    /// The number of values that are recomputed, one from the other, to get this one.
    fn depth(&self) -> usize {
        match self {
            Saved::Tensor(_) => 0,
            Saved::Recompute(value) => value.depth,
        }
    }
}

/// Keeps every `KEPT`-th value of a recomputation chain.
const KEPT: usize = 4;

/// A value that is cheap to compute from others that are saved anyway, such as a normalised activation
/// from the result of its convolution. It takes no memory between its last use in the forward pass and
/// its first use in the backward pass. From then on it is kept until every operation that saved it has
/// run backward.
///
/// The last activation of a stage is recomputed from that of the block before it, and so on to the
/// first. Every fourth one of this chain is kept: each of the others is then at most three steps away,
/// for a quarter of the memory of keeping all.
pub(crate) struct Recompute {
    compute: Box<dyn Fn(&Device) -> Result<Tensor>>,
    depth: usize,
    kept: RefCell<Option<Tensor>>,
}

impl Recompute {
    /// A value that `compute` returns. `before` is the value that it is computed from, if that may have
    /// to be recomputed too.
    pub(crate) fn new(
        before: Option<&Saved>,
        compute: impl Fn(&Device) -> Result<Tensor> + 'static,
    ) -> Rc<Self> {
        Rc::new(Recompute {
            compute: Box::new(compute),
            depth: before.map_or(0, Saved::depth) + 1,
            kept: RefCell::default(),
        })
    }

    /// Keeps `value`, which equals the value that would be computed.
    pub(super) fn keep(&self, value: &Tensor) {
        self.kept.replace(Some(value.clone()));
    }

    fn tensor(&self, device: &Device, keep: bool) -> Result<Tensor> {
        if let Some(kept) = &*self.kept.borrow() {
            return Ok(kept.clone());
        }
        let value = (self.compute)(device)?;
        if keep {
            self.keep(&value);
        }
        Ok(value)
    }
}
