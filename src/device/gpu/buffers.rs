//! GPU memory: tensors' buffers, the pool that they go back to, and the staging buffers of readbacks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::context::{Context, lock};
use crate::device::memory::{MemoryCounter, next_storage_id, size_class};
use crate::error::{Error, Result};

/// A buffer with a number of its own, by which bind groups are cached.
#[derive(Clone)]
pub(super) struct Buffer {
    pub(super) raw: wgpu::Buffer,
    pub(super) number: u64,
}

/// The elements of one tensor. The buffer is at least as large as its size class, so that the last vec4 of a kernel may
/// touch padding.
pub(crate) struct GpuStorage {
    id: u64,
    pub(super) buffer: Buffer,
    context: Arc<Context>,
}

impl GpuStorage {
    /// A buffer for `bytes` bytes whose content is not defined.
    pub(super) fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        Ok(GpuStorage {
            id: next_storage_id(),
            buffer: context.pool.take(context, bytes)?,
            context: context.clone(),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the tensor lives on the device of `context`.
    pub(super) fn is_on(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }
}

impl Drop for GpuStorage {
    /// The buffer can be used again at once: kernels run in the order in which they were recorded.
    fn drop(&mut self) {
        self.context.pool.give_back(self.buffer.clone());
    }
}

/// Staging buffers of a size that are made together: readbacks of several steps are under way at once, and only the first
/// step is to make buffers.
const STAGING_AT_ONCE: usize = 8;
/// The largest staging buffer that is made with others.
const SMALL_STAGING: u64 = 1024;

/// Free buffers by size, and by number.
///
/// The free buffer with the lowest number is always taken, so that the same requests in the same order get the same
/// buffers, step after step, and find their bind groups in the cache.
#[derive(Default)]
pub(super) struct Pool {
    free: Mutex<HashMap<u64, BTreeMap<u64, Buffer>>>,
    staging: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
    pub(super) memory: MemoryCounter,
}

impl Pool {
    fn take(&self, context: &Context, bytes: usize) -> Result<Buffer> {
        // Counted in words, so that every class is a multiple of 64 words, 256 bytes: the largest offset alignment that
        // an adapter may ask for.
        let words = size_class(bytes.div_ceil(4).max(1)).next_multiple_of(64);
        let size = 4 * words as u64;
        if let Some((_, buffer)) = lock(&self.free)
            .get_mut(&size)
            .and_then(BTreeMap::pop_first)
        {
            return Ok(buffer);
        }
        let limit = context.limits.max_buffer_size;
        if size > limit {
            return Err(Error::device(
                &context.name,
                format!(
                    "a tensor of {bytes} bytes is larger than the adapter's largest buffer, {limit} bytes; use a smaller \
                     batch or another device"
                ),
            ));
        }
        let raw = context.create_buffer(
            size,
            wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
        )?;
        self.memory.add(size);
        Ok(Buffer {
            raw,
            number: next_storage_id(),
        })
    }

    fn give_back(&self, buffer: Buffer) {
        lock(&self.free)
            .entry(buffer.raw.size())
            .or_default()
            .insert(buffer.number, buffer);
    }

    /// A buffer that the host can map, of `bytes` bytes or more.
    pub(super) fn take_staging(&self, context: &Context, bytes: u64) -> Result<wgpu::Buffer> {
        let size = bytes.next_multiple_of(256).max(256);
        if let Some(buffer) = lock(&self.staging).get_mut(&size).and_then(Vec::pop) {
            return Ok(buffer);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        if size <= SMALL_STAGING {
            for _ in 1..STAGING_AT_ONCE {
                self.give_back_staging(context.create_buffer(size, usage)?);
            }
        }
        context.create_buffer(size, usage)
    }

    /// Keeps a small staging buffer for the next readback; a large one is freed, since whole tensors are rarely read.
    pub(super) fn give_back_staging(&self, buffer: wgpu::Buffer) {
        if buffer.size() <= 64 * 1024 {
            lock(&self.staging)
                .entry(buffer.size())
                .or_default()
                .push(buffer);
        }
    }
}
