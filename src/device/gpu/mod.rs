//! A GPU as a device: memory, kernel launches and readbacks through wgpu.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::{MemoryBlock, MemoryUse};
use super::op::check_elements;
use super::profiler::Profiler;
use super::{IN_BROWSER, block_on};
use crate::error::{Error, Result};
use crate::tensor::{DType, Storage, Tensor};

mod adapters;
mod buffers;
mod compile;
mod context;
mod copy;
pub mod kernels;
mod launch;
mod matrices;
mod packed;
mod pipeline_cache;
mod readback;
mod stream;
mod timestamps;
pub mod variants;

pub use adapters::{AdapterChoice, AdapterDescription, adapters};
pub(crate) use buffers::GpuStorage;
pub use compile::Compiled;
pub use context::GpuOptions;
use context::{Context, lock};
pub use kernels::Kernel;
pub use launch::{Extent, Grid, Launch, Rows, Slice};
pub(crate) use packed::{PackedCopies, PackedForm, WeightPlace};
pub(crate) use readback::GpuReadback;
pub use stream::StreamCounts;
pub use timestamps::TimedKernel;
use variants::{ShapeClass, Variant, VariantTable};

/// A GPU as a device. Clones are handles to the same adapter and memory.
#[derive(Clone)]
pub struct Gpu {
    context: Arc<Context>,
    /// See [`Gpu::with_results`].
    results: Vec<Option<Tensor>>,
}

impl Gpu {
    /// Opens an adapter and waits until it is ready.
    ///
    /// # Errors
    /// `Error::Device` if there is no such adapter, if its limits are too small, or if it cannot be
    /// opened.
    pub fn open(options: GpuOptions) -> Result<Self> {
        block_on(Self::open_async(options))
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub async fn open_async(options: GpuOptions) -> Result<Self> {
        Ok(Gpu {
            context: Arc::new(Context::open(&options).await?),
            results: Vec::new(),
        })
    }

    /// The name of the adapter.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Whether the adapter is software that runs on the CPU.
    pub fn is_software(&self) -> bool {
        self.context.is_software
    }

    /// Counts of the work since the device was opened.
    pub fn counts(&self) -> StreamCounts {
        lock(&self.context.stream).counts
    }

    pub(crate) fn profiler(&self) -> &Profiler {
        &self.context.profiler
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.context.pool.memory.read()
    }

    pub(crate) fn in_host_memory(&self) -> bool {
        self.context.in_host_memory
    }

    pub(crate) fn holds(&self, storage: &GpuStorage) -> bool {
        storage.is_on(&self.context)
    }

    /// Submits everything recorded so far, without waiting.
    pub(crate) fn submit(&self) -> Result<()> {
        self.context.submit()
    }

    /// Submits everything recorded so far, and waits until it has run.
    pub(crate) fn wait(&self) -> Result<()> {
        self.context.submit()?;
        if IN_BROWSER {
            let message = "a browser's thread must not wait for the GPU; await a readback";
            return Err(Error::usage(message));
        }
        self.context.wait(None, "a wait")
    }

    /// Fails if the adapter was lost or reported an error.
    pub(crate) fn check(&self) -> Result<()> {
        self.context.check()
    }

    /// The table of variants in use. Results have the same bits only if the tables are equal.
    pub fn variants(&self) -> VariantTable {
        lock(&self.context.table).clone()
    }

    /// The built-in table for this adapter.
    pub fn shipped_variants(&self) -> VariantTable {
        let bytes = self.context.limits.max_compute_workgroup_storage_size;
        VariantTable::shipped(self.variants().key, bytes)
    }

    /// Uses `table` from now on.
    pub fn use_variants(&self, table: VariantTable) {
        *lock(&self.context.table) = table;
    }

    /// The variant that the table selects for `class`. `available` lists the variants of the
    /// operation, each with the number of elements of the result, padded to whole tiles.
    pub(crate) fn choose(&self, class: &ShapeClass, available: &[(Variant, usize)]) -> Variant {
        lock(&self.context.table).choose(class, available)
    }

    /// Sets the maximum bytes per binding; by default, the limit of the adapter. At a small limit,
    /// small tensors are cut into slices.
    pub(crate) fn limit_bindings(&self, limit: Option<u64>) {
        self.context.limit_bindings(limit);
    }

    /// The bytes, at most `wanted`, that can be allocated now: they are allocated and freed.
    pub fn allocatable(&self, wanted: u64) -> u64 {
        self.context.allocatable(wanted)
    }

    /// The shader and entry point of each kernel that was launched.
    pub(crate) fn kernels_used(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.context.compiler.names()
    }

    /// The kernels compiled since the device was opened.
    pub fn compiled(&self) -> Compiled {
        self.context.compiler.compiled()
    }

    /// Maximum bytes per binding.
    pub(crate) fn binding_limit(&self) -> usize {
        self.context.binding_limit() as usize
    }

    /// Whether the adapter allows a tensor of `bytes` bytes.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        bytes as u64 <= self.context.limits.max_buffer_size
    }

    /// Whether the adapter has the workgroup memory, the invocations and the matrices of `kernel`.
    pub(crate) fn runs(&self, kernel: &Kernel) -> bool {
        let has_matrix = kernel.matrix == 0 || self.context.matrices.contains(&kernel.matrix);
        has_matrix && kernel.runs(&self.context.limits)
    }

    /// Whether kernels can use matrix units; see [`GpuOptions::matrices`].
    pub fn has_matrices(&self) -> bool {
        !self.context.matrices.is_empty()
    }

    /// Whether a variant can run here: one on matrices needs an adapter that has them.
    pub fn has(&self, variant: Variant) -> bool {
        match variant {
            Variant::Matrix(size) => self.context.matrices.contains(&size.rows()),
            _ => true,
        }
    }

    /// Whether products and convolutions of f32 tensors round their factors to f16.
    pub(crate) fn rounds_factors(&self) -> bool {
        self.context.rounds_factors.load(Ordering::Relaxed)
    }

    pub(super) fn round_factors(&self, rounds: bool) -> bool {
        self.context.rounds_factors.swap(rounds, Ordering::Relaxed)
    }

    /// A tensor with undefined content, for a kernel to fill.
    ///
    /// # Errors
    /// `Error::Device` if memory is short or the adapter has no such element type; `Error::Shape`
    /// if the shape has more than 2^32 - 1 elements.
    pub fn allocate(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let len = check_elements("allocate", shape)?;
        if dtype == DType::F16 && !self.context.has_f16 {
            return Err(Error::device(
                &self.context.name,
                "the adapter has no f16 (SHADER_F16); use f32 or another device",
            ));
        }
        let storage = GpuStorage::allocate(&self.context, len * dtype.bytes())?;
        Ok(Tensor::new(shape, dtype, Storage::Gpu(Arc::new(storage))))
    }

    /// A handle for an operation whose results are stored in these tensors, as far as it supports
    /// it ([`Gpu::result`]).
    pub(crate) fn with_results(&self, results: Vec<Option<Tensor>>) -> Gpu {
        Gpu {
            context: self.context.clone(),
            results,
        }
    }

    /// The f32 tensor for a result of an operation, with undefined content: that of
    /// [`Gpu::with_results`] with this index, or a new one.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub(crate) fn result(&self, index: usize, shape: &[usize]) -> Result<Tensor> {
        let given = self.results.get(index).and_then(Option::as_ref);
        match given.filter(|x| x.shape() == shape && x.dtype() == DType::F32) {
            Some(given) => Ok(given.clone()),
            None => self.floats(shape),
        }
    }

    /// The blocks of memory, in the order in which they were allocated.
    pub fn blocks(&self) -> Vec<MemoryBlock> {
        self.context.pool.blocks()
    }

    /// As [`Gpu::allocate`], for f32.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn floats(&self, shape: &[usize]) -> Result<Tensor> {
        self.allocate(shape, DType::F32)
    }

    /// A tensor with the elements of `bytes`.
    pub(crate) fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor> {
        let x = self.allocate(shape, dtype)?;
        self.storage(&x)?.overwrite(bytes)?;
        Ok(x)
    }

    /// Copies host structs to a tensor of 32-bit words.
    ///
    /// # Errors
    /// `Error::Shape` if the structs do not fill whole words; `Error::Device` if memory is short.
    pub fn words<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Tensor> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if !bytes.len().is_multiple_of(4) {
            let message = format!(
                "{} bytes; expected a multiple of 4; pad the structs",
                bytes.len()
            );
            return Err(Error::shape("words", message));
        }
        self.upload(bytes, &[bytes.len() / 4], DType::U32)
    }

    pub(crate) fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let x = self.allocate(shape, dtype)?;
        self.context.clear(&self.storage(&x)?.whole());
        Ok(x)
    }

    pub(crate) fn storage<'a>(&self, x: &'a Tensor) -> Result<&'a GpuStorage> {
        match x.storage() {
            Storage::Gpu(storage) if storage.is_on(&self.context) => Ok(storage),
            _ => {
                let message = format!("a tensor is not on {}; copy it first", self.context.name);
                Err(Error::shape("", message))
            }
        }
    }
}
