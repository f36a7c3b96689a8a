//! What operations keep for the way back: tensors, or what it takes to compute them again.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// A value as an operation keeps it for its backward pass.
#[derive(Clone)]
pub(super) enum Saved {
    Tensor(Tensor),
    Again(Rc<Again>),
}

impl Saved {
    /// The value, computed again where it was not kept.
    pub(super) fn tensor(&self, device: &Device) -> Result<Tensor> {
        self.clone().into_tensor(device)
    }

    /// As [`Saved::tensor`], for the last use: what held the value here goes, so that it can be unshared.
    pub(super) fn into_tensor(self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor),
            Saved::Again(again) => again.tensor(device, true),
        }
    }

    /// As [`Saved::tensor`], for a value that is only needed to compute another one again.
    pub(super) fn tensor_between(&self, device: &Device) -> Result<Tensor> {
        match self {
            Saved::Tensor(tensor) => Ok(tensor.clone()),
            Saved::Again(again) => again.tensor(device, again.depth % KEPT == 0),
        }
    }

    /// How many values are computed again, one from the other, to get this one.
    fn depth(&self) -> usize {
        match self {
            Saved::Tensor(_) => 0,
            Saved::Again(again) => again.depth,
        }
    }
}

/// Of the values on the way to another one, one of so many is kept.
const KEPT: usize = 4;

/// How to compute a value again.
type Compute = Box<dyn Fn(&Device) -> Result<Tensor>>;

/// A value that is cheap to compute from others that are kept anyway: a normalised and rectified activation, from the
/// result of its convolution. It takes no memory between its last use on the way forward and the first on the way back;
/// from there on it is kept until every operation that saved it has gone back.
///
/// The last activation of a stage needs that of the block before, and so on to the first. Every fourth one on this way
/// is kept: each of the others is then three steps away at most when its turn comes, for a quarter of the memory of
/// keeping all.
pub(super) struct Again {
    compute: Compute,
    depth: usize,
    found: RefCell<Option<Tensor>>,
}

impl Again {
    /// A value that `compute` makes, from `before` where that may have to be computed again too.
    pub(super) fn new(
        before: Option<&Saved>,
        compute: impl Fn(&Device) -> Result<Tensor> + 'static,
    ) -> Rc<Self> {
        Rc::new(Again {
            compute: Box::new(compute),
            depth: before.map_or(0, Saved::depth) + 1,
            found: RefCell::default(),
        })
    }

    /// Keeps `value`, which is what it would compute.
    pub(super) fn keep(&self, value: &Tensor) {
        self.found.replace(Some(value.clone()));
    }

    fn tensor(&self, device: &Device, keep: bool) -> Result<Tensor> {
        if let Some(found) = &*self.found.borrow() {
            return Ok(found.clone());
        }
        let found = (self.compute)(device)?;
        if keep {
            self.found.replace(Some(found.clone()));
        }
        Ok(found)
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Again(found: {})", self.found.borrow().is_some())
    }
}
