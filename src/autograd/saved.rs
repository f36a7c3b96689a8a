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
        match self {
            Saved::Tensor(tensor) => Ok(tensor.clone()),
            Saved::Again(again) => again.tensor(device),
        }
    }
}

/// How to compute a value again.
type Compute = Box<dyn Fn(&Device) -> Result<Tensor>>;

/// A value that is cheap to compute from others that are kept anyway: a normalised and rectified activation, from the
/// result of its convolution. It takes no memory between its last use on the way forward and the first on the way back;
/// from there on it is kept until every operation that saved it has gone back.
pub(super) struct Again {
    compute: Compute,
    found: RefCell<Option<Tensor>>,
}

impl Again {
    pub(super) fn new(compute: impl Fn(&Device) -> Result<Tensor> + 'static) -> Rc<Self> {
        Rc::new(Again {
            compute: Box::new(compute),
            found: RefCell::default(),
        })
    }

    pub(super) fn tensor(&self, device: &Device) -> Result<Tensor> {
        if let Some(found) = &*self.found.borrow() {
            return Ok(found.clone());
        }
        let found = (self.compute)(device)?;
        self.found.replace(Some(found.clone()));
        Ok(found)
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Again(found: {})", self.found.borrow().is_some())
    }
}
