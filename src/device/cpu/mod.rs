//! The CPU as a device: memory, and loops on every core. It is the reference for the WGSL kernels
//! and the device of machines without a GPU.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::memory::MemoryUse;
use super::op::check_elements;
use super::profiler::Profiler;
use crate::error::{Error, Result};
use crate::tensor::{DType, Storage, Tensor};

pub(crate) mod activations;
pub(crate) mod arena;
pub(crate) mod exp;
pub(crate) mod matmul;
pub(crate) mod parallel;
pub(crate) mod scratch;
pub(crate) mod simd;
mod storage;
#[cfg(feature = "threads")]
mod threads;

use arena::{Arena, Buffer};
pub use parallel::for_chunks;
pub(crate) use storage::CpuStorage;
use storage::{CpuData, read, shared, write};
#[cfg(feature = "threads")]
pub use threads::with_threads;

/// The processor as a device. Clones are handles to the same memory. If the system refuses memory,
/// the process ends, as for a `Vec`.
#[derive(Clone, Default)]
pub struct Cpu(Arc<Shared>);

#[derive(Default)]
struct Shared {
    arena: Arc<Arena>,
    profiler: Profiler,
    without_winograd: bool,
    /// Whether products of f32 round their factors to f16.
    rounds_factors: AtomicBool,
}

impl Cpu {
    pub fn new() -> Self {
        Self::default()
    }

    /// A device without Winograd's method, for comparisons: every convolution is a matrix product.
    pub fn without_winograd() -> Self {
        Cpu(Arc::new(Shared {
            without_winograd: true,
            ..Shared::default()
        }))
    }

    pub(crate) fn uses_winograd(&self) -> bool {
        !self.0.without_winograd
    }

    pub(crate) fn rounds_factors(&self) -> bool {
        self.0.rounds_factors.load(Ordering::Relaxed)
    }

    pub(super) fn round_factors(&self, rounds: bool) -> bool {
        self.0.rounds_factors.swap(rounds, Ordering::Relaxed)
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.0.arena.memory()
    }

    pub(crate) fn profiler(&self) -> &Profiler {
        &self.0.profiler
    }

    pub(crate) fn holds(&self, storage: &CpuStorage) -> bool {
        Arc::ptr_eq(&self.0, &storage.cpu().0)
    }

    fn arena(&self) -> &Arc<Arena> {
        &self.0.arena
    }

    /// Allocates `len` floats with undefined content, to be filled and passed to [`Cpu::floats`].
    pub(crate) fn allocate(&self, len: usize) -> Buffer {
        self.0.arena.allocate(len)
    }

    /// The filled `buffer` as a tensor.
    pub(crate) fn floats(&self, shape: &[usize], buffer: Buffer) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), buffer.len());
        self.tensor(shape, DType::F32, CpuData::F32(RwLock::new(buffer)))
    }

    /// A new f32 tensor of `shape`, whose elements `fill` sets.
    pub fn filled(&self, shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Tensor {
        let mut buffer = self.allocate(shape.iter().product());
        fill(&mut buffer);
        self.floats(shape, buffer)
    }

    /// The integers as a tensor.
    pub(crate) fn integers(&self, shape: &[usize], values: Vec<u32>) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        self.tensor(shape, DType::U32, CpuData::U32(RwLock::new(values)))
    }

    fn tensor(&self, shape: &[usize], dtype: DType, data: CpuData) -> Tensor {
        Tensor::new(shape, dtype, Storage::Cpu(shared(data, self)))
    }

    /// A tensor with the elements of `bytes`, of type f32, u32 or u8.
    pub(crate) fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Tensor {
        let data = match dtype {
            DType::F32 | DType::F16 => {
                let mut buffer = self.allocate(bytes.len() / size_of::<f32>());
                bytemuck::cast_slice_mut(&mut buffer).copy_from_slice(bytes);
                CpuData::F32(RwLock::new(buffer))
            }
            DType::U32 => CpuData::U32(RwLock::new(bytemuck::pod_collect_to_vec(bytes))),
            DType::U8 => CpuData::U8(RwLock::new(bytes.to_vec())),
        };
        self.tensor(shape, dtype, data)
    }

    pub(crate) fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let len = check_elements("zeros", shape)?;
        Ok(match dtype {
            DType::F32 | DType::F16 => {
                let mut values = self.allocate_activations(len, dtype);
                values.for_chunks(parallel::CHUNK, |_, part| part.fill(0.0));
                self.activations(shape, values)
            }
            DType::U32 => self.integers(shape, vec![0; len]),
            DType::U8 => self.tensor(shape, dtype, CpuData::U8(RwLock::new(vec![0; len]))),
        })
    }

    /// The elements of an f32 tensor, for reading. While the result exists, no operation can change
    /// the tensor. An operation reads f16 through [`Cast`](crate::ops::Cast).
    ///
    /// # Errors
    /// `Error::Shape` if the tensor has another element type or is on a GPU.
    pub fn read<'a>(&self, x: &'a Tensor) -> Result<impl Deref<Target = [f32]> + Sync + use<'a>> {
        match data(x)? {
            CpuData::F32(lock) => Ok(Floats(read(lock))),
            _ => Err(wrong_type(x, DType::F32)),
        }
    }

    /// The elements of an f32 tensor, for writing. All clones of the tensor change, so an operation
    /// writes over an argument only if it owns it and [`Tensor::is_unshared`]. Waits until no other
    /// access to the tensor exists.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn write<'a>(&self, x: &'a Tensor) -> Result<impl DerefMut<Target = [f32]> + use<'a>> {
        match data(x)? {
            CpuData::F32(lock) => Ok(FloatsMut(write(lock))),
            _ => Err(wrong_type(x, DType::F32)),
        }
    }

    /// The elements of a u32 tensor, for reading, as [`Cpu::read`].
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn read_u32<'a>(&self, x: &'a Tensor) -> Result<RwLockReadGuard<'a, Vec<u32>>> {
        match data(x)? {
            CpuData::U32(lock) => Ok(read(lock)),
            _ => Err(wrong_type(x, DType::U32)),
        }
    }

    pub(crate) fn write_u32<'a>(&self, x: &'a Tensor) -> Result<RwLockWriteGuard<'a, Vec<u32>>> {
        match data(x)? {
            CpuData::U32(lock) => Ok(write(lock)),
            _ => Err(wrong_type(x, DType::U32)),
        }
    }

    pub(crate) fn read_u8<'a>(&self, x: &'a Tensor) -> Result<RwLockReadGuard<'a, Vec<u8>>> {
        match data(x)? {
            CpuData::U8(lock) => Ok(read(lock)),
            _ => Err(wrong_type(x, DType::U8)),
        }
    }
}

/// The elements of an f32 tensor, locked for reading.
struct Floats<'a>(RwLockReadGuard<'a, Buffer>);

impl Deref for Floats<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// The elements of an f32 tensor, locked for writing.
struct FloatsMut<'a>(RwLockWriteGuard<'a, Buffer>);

impl Deref for FloatsMut<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for FloatsMut<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// The memory of a tensor, which must be on the CPU.
fn data(x: &Tensor) -> Result<&CpuData> {
    match x.storage() {
        Storage::Cpu(storage) => Ok(storage.data()),
        Storage::Gpu(_) => Err(Error::shape("", "a tensor is on a GPU; copy it to the CPU")),
    }
}

fn wrong_type(x: &Tensor, expected: DType) -> Error {
    let message = format!("a tensor holds {:?}; expected {expected:?}", x.dtype());
    Error::shape("", message)
}
