//! A tensor: a shape, an element type, and storage on a device. Tensors are contiguous and in
//! row-major order.

mod flat;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::device::cpu::CpuStorage;
use crate::device::gpu::GpuStorage;
use crate::device::profiler::Work;
use crate::device::{Device, Readback, check_elements};
use crate::error::{Error, Result};
pub(crate) use flat::Flat;

/// Element types that a device stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    /// IEEE 754 half precision, for activations and their gradients. Kernels compute in f32 and
    /// round to nearest when they store. Numbers beyond 65,504 become infinities.
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
    /// The name in configurations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U32 => "u32",
            DType::U8 => "u8",
        })
    }
}

/// An element type of both the host and the devices: `f32`, `u32` or `u8`.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($host:ty, $dtype:ident) => {
        impl sealed::Sealed for $host {}
        impl Element for $host {
            const DTYPE: DType = DType::$dtype;
        }
    };
}

element!(f32, F32);
element!(u32, U32);
element!(u8, U8);

/// The memory of the elements. Clones share it.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(Arc<CpuStorage>),
    Gpu(Arc<GpuStorage>),
}

/// A contiguous array on a device. A clone is cheap and shares the elements. The memory returns to
/// the device with the last clone.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    storage: Storage,
}

impl Tensor {
    /// A tensor over `storage`, which was allocated for this shape and type.
    pub(crate) fn new(shape: &[usize], dtype: DType, storage: Storage) -> Self {
        Tensor {
            shape: shape.to_vec(),
            dtype,
            storage,
        }
    }

    /// Copies `values`, in row-major order, into a new tensor of `shape`.
    ///
    /// # Errors
    /// `Error::Shape` if the shape has another number of elements; `Error::Device` if memory is
    /// short.
    pub fn from_slice<T: Element>(
        values: &[T],
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor> {
        check_len("from_slice", values.len(), shape)?;
        let bytes = bytemuck::cast_slice(values);
        let upload = || match device {
            Device::Cpu(cpu) => Ok(cpu.upload(bytes, shape, T::DTYPE)),
            Device::Gpu(gpu) => gpu.upload(bytes, shape, T::DTYPE),
        };
        device.record("upload", upload, |y| Work::of_transfer(None, Some(y)))
    }

    /// A new tensor of zeros.
    ///
    /// # Errors
    /// `Error::Device` if memory is short or the device has no such element type.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let zeros = || match device {
            Device::Cpu(cpu) => cpu.zeros(shape, dtype),
            Device::Gpu(gpu) => gpu.zeros(shape, dtype),
        };
        device.record("zeros", zeros, |y| Work::of_transfer(None, Some(y)))
    }

    /// Replaces the elements of this tensor and of all clones.
    ///
    /// # Errors
    /// `Error::Shape` if the number or the type of the values differs.
    pub fn overwrite<T: Element>(&self, values: &[T]) -> Result<()> {
        check_len("overwrite", values.len(), &self.shape)?;
        self.expect("overwrite", "the tensor", &self.shape, T::DTYPE)?;
        let bytes = bytemuck::cast_slice(values);
        let overwrite = || match &self.storage {
            Storage::Cpu(storage) => {
                storage.overwrite(bytes);
                Ok(())
            }
            Storage::Gpu(storage) => storage.overwrite(bytes),
        };
        let work = |_: &()| Work::of_transfer(None, Some(self));
        self.device().record("overwrite", overwrite, work)
    }

    /// Starts the transfer of the elements to the host without waiting for it.
    ///
    /// # Errors
    /// `Error::Device` if memory is short or the adapter was lost.
    pub fn read(&self) -> Result<Readback> {
        let read = || match &self.storage {
            Storage::Cpu(storage) => Ok(Readback::ready(storage.bytes(), self.dtype)),
            Storage::Gpu(storage) => {
                let transfer = storage.read(self.len() * self.dtype.bytes())?;
                Ok(Readback::from_gpu(transfer, self.dtype))
            }
        };
        let work = |_: &Readback| Work::of_transfer(Some(self), None);
        self.device().record("download", read, work)
    }

    /// Copies the elements to the host and waits for them. A training step must not call this. Cast
    /// f16 to f32 first.
    ///
    /// # Errors
    /// `Error::Shape` if the elements are of another type; otherwise as [`Tensor::read`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.read()?.wait_as()
    }

    /// As [`Tensor::to_vec`]. Outside of a browser, it blocks the thread.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub async fn to_vec_async<T: Element>(&self) -> Result<Vec<T>> {
        self.read()?.wait_as_async().await
    }

    /// Copies the elements of several tensors to the host, one after another, and waits for them
    /// once. A training step on one rank must not call this.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub fn all_to_vec<'a, T: Element>(
        tensors: impl IntoIterator<Item = &'a Tensor>,
    ) -> Result<Vec<T>> {
        let transfers = tensors.into_iter().map(Tensor::read);
        let transfers = transfers.collect::<Result<Vec<_>>>()?;
        let mut values = Vec::new();
        for transfer in transfers {
            values.extend(transfer.wait_as::<T>()?);
        }
        Ok(values)
    }

    /// Copies the element of a tensor with one element to the host and waits for it.
    ///
    /// # Errors
    /// `Error::Shape` if the tensor has another number of elements; otherwise as
    /// [`Tensor::to_vec`].
    pub fn to_scalar<T: Element>(&self) -> Result<T> {
        match self.to_vec()?[..] {
            [value] => Ok(value),
            _ => Err(Error::shape(
                "to_scalar",
                format!("the tensor is {:?}; expected one element", self.shape),
            )),
        }
    }

    /// The device that holds the elements.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Cpu(storage) => Device::Cpu(storage.cpu().clone()),
            Storage::Gpu(storage) => Device::Gpu(storage.gpu()),
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

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// `Error::Shape` if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        let expected = check_elements("reshape", shape)?;
        if expected != self.len() {
            let message = format!(
                "{:?} has {} elements, and {shape:?} has {expected}; use a shape with as many elements",
                self.shape,
                self.len()
            );
            return Err(Error::shape("reshape", message));
        }
        Ok(Tensor::new(shape, self.dtype, self.storage.clone()))
    }

    /// A number that this tensor shares with its clones and reshapes only. Unique in the process.
    pub fn id(&self) -> u64 {
        match &self.storage {
            Storage::Cpu(s) => s.id(),
            Storage::Gpu(s) => s.id(),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether no other tensor shares these elements, so that an operation that owns the tensor can
    /// write its result over them.
    pub fn is_unshared(&self) -> bool {
        match &self.storage {
            Storage::Cpu(s) => Arc::strong_count(s) == 1,
            Storage::Gpu(s) => Arc::strong_count(s) == 1,
        }
    }

    /// A new tensor of this shape, with undefined content, in the slot of this one: the place of a
    /// tensor that belongs to this one, such as the gradient of a parameter ([`Flat::set_slots`]).
    /// `None` if there is no slot, or a tensor in it.
    pub(crate) fn in_slot(&self) -> Option<Tensor> {
        match &self.storage {
            Storage::Cpu(_) => None,
            Storage::Gpu(s) => {
                let storage = Storage::Gpu(s.in_slot()?);
                Some(Tensor::new(&self.shape, self.dtype, storage))
            }
        }
    }

    /// The shape as N, C, H, W.
    pub(crate) fn nchw(&self, operation: &'static str, name: &str) -> Result<[usize; 4]> {
        self.dimensions(operation, name, "four dimensions N, C, H, W")
    }

    /// The shape as rows and columns.
    pub(crate) fn matrix(&self, operation: &'static str, name: &str) -> Result<[usize; 2]> {
        self.dimensions(operation, name, "two dimensions, rows and columns")
    }

    fn dimensions<const N: usize>(
        &self,
        operation: &'static str,
        name: &str,
        expected: &str,
    ) -> Result<[usize; N]> {
        <[usize; N]>::try_from(self.shape.as_slice()).map_err(|_| {
            let message = format!("{name} has shape {:?}; expected {expected}", self.shape);
            Error::shape(operation, message)
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
            let message = format!(
                "{name} is {:?} {:?}; expected {dtype:?} {shape:?}",
                self.dtype, self.shape
            );
            return Err(Error::shape(operation, message));
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

/// Fails unless `count` values fill `shape`.
fn check_len(operation: &'static str, count: usize, shape: &[usize]) -> Result<()> {
    let expected = check_elements(operation, shape)?;
    if count != expected {
        let message = format!("{count} values for shape {shape:?}; expected {expected}");
        return Err(Error::shape(operation, message));
    }
    Ok(())
}
