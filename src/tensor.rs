//! A tensor: a shape, an element type, and storage on a device. Always contiguous, the last dimension fastest.

use std::fmt;
use std::sync::Arc;

use crate::device::cpu::CpuStorage;
use crate::device::gpu::GpuStorage;
use crate::error::{Error, Result};

/// Element types that a device stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    /// IEEE 754's 16 bits: how activations and their gradients may be stored. Kernels compute in f32 and round, to the
    /// nearest, what they store; beyond 65,504 that is an infinity.
    F16,
    U32,
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 => 2,
            DType::U8 => 1,
        }
    }
}

impl fmt::Display for DType {
    /// As `--precision` and configurations name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U32 => "u32",
            DType::U8 => "u8",
        })
    }
}

/// Where the elements are. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(Arc<CpuStorage>),
    Gpu(Arc<GpuStorage>),
}

/// A contiguous array on a device. Cloning is cheap and shares the elements; the memory goes back to the device's pool
/// with the last clone.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    pub(crate) storage: Storage,
}

impl Tensor {
    /// A tensor over `storage`, which the device made for exactly this shape and type.
    pub(crate) fn new(shape: &[usize], dtype: DType, storage: Storage) -> Self {
        Tensor {
            shape: shape.to_vec(),
            dtype,
            storage,
        }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// `Error::Shape` where the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape(
                "reshape",
                format!(
                    "{:?} has {} elements and cannot become {shape:?}",
                    self.shape,
                    self.len()
                ),
            ));
        }
        Ok(Tensor::new(shape, self.dtype, self.storage.clone()))
    }

    /// A number that this tensor shares with its clones and reshapes and with no other tensor of the process.
    pub fn id(&self) -> u64 {
        match &self.storage {
            Storage::Cpu(s) => s.id(),
            Storage::Gpu(s) => s.id(),
        }
    }

    /// Whether no other tensor shares these elements, so that changing them in place changes nothing else.
    pub(crate) fn is_unshared(&self) -> bool {
        match &self.storage {
            Storage::Cpu(s) => Arc::strong_count(s) == 1,
            Storage::Gpu(s) => Arc::strong_count(s) == 1,
        }
    }

    /// The shape as four numbers N, C, H, W.
    pub(crate) fn nchw(&self, operation: &'static str, name: &str) -> Result<[usize; 4]> {
        <[usize; 4]>::try_from(self.shape.as_slice()).map_err(|_| {
            Error::shape(
                operation,
                format!(
                    "{name} has shape {:?}; expected four dimensions N, C, H, W",
                    self.shape
                ),
            )
        })
    }

    /// The shape as rows and columns.
    pub(crate) fn matrix(&self, operation: &'static str, name: &str) -> Result<[usize; 2]> {
        <[usize; 2]>::try_from(self.shape.as_slice()).map_err(|_| {
            Error::shape(
                operation,
                format!(
                    "{name} has shape {:?}; expected two dimensions, rows and columns",
                    self.shape
                ),
            )
        })
    }

    /// Fails unless the tensor has exactly this shape and element type.
    pub(crate) fn expect(
        &self,
        operation: &'static str,
        name: &str,
        shape: &[usize],
        dtype: DType,
    ) -> Result<()> {
        if self.shape != shape || self.dtype != dtype {
            return Err(Error::shape(
                operation,
                format!(
                    "{name} is {:?} {:?}; expected {dtype:?} {shape:?}",
                    self.dtype, self.shape
                ),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = match self.storage {
            Storage::Cpu(_) => "cpu",
            Storage::Gpu(_) => "gpu",
        };
        write!(f, "Tensor({:?} {:?} on {device})", self.dtype, self.shape)
    }
}
