//! Values that operations save for their backward pass: tensors, or recomputations of them. This is
//! always on; the option `--recompute` is implemented in `checkpoint.rs`.

use std::cell::RefCell;
use std::rc::Rc;

use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// A value that an operation saves for its backward pass.
#[derive(Clone)]
pub(crate) enum Saved {
    Tensor(Tensor),
    Recompute(Rc<Recompute>),
}

impl Saved {
    /// The value, which is recomputed unless it is in memory.
    pub(crate) fn tensor(&self, device: &Device) -> Result<Tensor> {
        self.clone().into_tensor(device)
    }

    /// As [`Saved::tensor`], for the last use in an operation, which may overwrite the tensor if
    /// nothing else shares it.
    pub(crate) fn into_tensor(self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor),
            Saved::Recompute(value) => value.tensor(device, true),
        }
    }

    /// As [`Saved::tensor`], for the recomputation of another value. Keeps the tensor only if it is
    /// a [`KEPT`]-th value of its chain.
    pub(crate) fn intermediate(&self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor.clone()),
            Saved::Recompute(value) => value.tensor(device, value.depth % KEPT == 0),
        }
    }

    /// The length of the chain of recomputations that ends with this value.
    fn depth(&self) -> usize {
        match self {
            Saved::Tensor(_) => 0,
            Saved::Recompute(value) => value.depth,
        }
    }
}

/// Keeps every `KEPT`-th value of a recomputation chain.
const KEPT: usize = 4;

type Compute = dyn Fn(&Device) -> Result<Tensor>;

/// A value that is cheap to compute from other saved values, such as a normalised activation from
/// the result of its convolution. It takes no memory between its last use in the forward pass and
/// its first use in the backward pass. From then on, it is kept until every operation that saved it
/// has run its backward pass.
///
/// The last activation of a stage is recomputed from the last activation of the block before it,
/// and so on to the first block. Of the values of this chain, only every [`KEPT`]-th is kept. This
/// takes a quarter of the memory, and no value is more than three recomputations away.
pub(crate) struct Recompute {
    compute: Box<Compute>,
    depth: usize,
    kept: RefCell<Option<Tensor>>,
}

impl Recompute {
    /// The value that `compute` returns. `before` is the value in the chain from which it is
    /// computed, if there is one.
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

    /// Keeps `value`, which must equal the result of the recomputation.
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
