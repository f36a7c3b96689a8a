//! GPU memory: the storage of tensors, the buffers that contain it, and the staging buffers of
//! readbacks.
//!
//! One buffer holds many tensors, and a kernel may read one of them and write another. wgpu allows
//! a single usage of a buffer per dispatch. Therefore `build.rs` declares all storage bindings as
//! `read_write`, and a launch fails if a tensor that its kernel writes overlaps another binding.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::context::{Context, lock};
use super::stream::Part;
use super::{Gpu, GpuReadback};
use crate::device::IN_BROWSER;
use crate::device::allocator::{ALIGNMENT_BYTES, Allocation, Allocator};
use crate::device::memory::{MemoryCounter, next_storage_id};
use crate::error::{Error, Result};

/// A buffer with a unique number, which is a part of the keys of cached bind groups.
#[derive(Clone)]
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) number: u64,
}

/// The elements of one tensor. Its region is a multiple of 256 bytes, so the last vec4 of a kernel
/// may contain padding.
pub(crate) struct GpuStorage {
    id: u64,
    buffer: Buffer,
    allocation: Allocation,
    context: Arc<Context>,
}

impl GpuStorage {
    /// Allocates `bytes` bytes with undefined content.
    pub(crate) fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let (buffer, allocation) = context.pool.allocate(context, bytes)?;
        Ok(GpuStorage {
            id: next_storage_id(),
            buffer,
            allocation,
            context: context.clone(),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn gpu(&self) -> Gpu {
        Gpu {
            context: self.context.clone(),
        }
    }

    /// Replaces the first bytes of the tensor.
    pub(crate) fn overwrite(&self, bytes: &[u8]) -> Result<()> {
        self.context.write(&self.whole(), bytes)
    }

    /// Starts the transfer of the first `bytes` bytes to the host.
    pub(crate) fn read(&self, bytes: usize) -> Result<GpuReadback> {
        GpuReadback::start(&self.context, &self.whole(), bytes)
    }

    /// Whether the tensor is on the device of `context`.
    pub(crate) fn is_on(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// The whole region, including padding.
    pub(crate) fn whole(&self) -> Part {
        Part {
            buffer: self.buffer.clone(),
            offset: self.allocation.region.start,
            size: self.allocation.region.len,
        }
    }
}

impl Drop for GpuStorage {
    /// The region can be reused at once: kernels run in the order in which they were recorded, and
    /// a write by the host runs after them ([`Context::write`]).
    fn drop(&mut self) {
        let mut blocks = lock(&self.context.pool.blocks);
        let Allocation { block, region, .. } = self.allocation;
        blocks.allocator.free(block, region);
    }
}

/// Bytes per block on a hardware adapter; a larger tensor gets a larger block. Small enough to
/// waste little memory in the last block.
const BLOCK_BYTES: u64 = 128 << 20;
/// Bytes per block on a software adapter, which provides a page only when it is touched. In a
/// larger block, more large regions find room. No known adapter allows a larger buffer. A browser
/// touches every page, because it fills buffers with zeros.
const SOFTWARE_BLOCK_BYTES: u64 = 2 << 30;
/// Number of small staging buffers that are created together: several readbacks are in flight at
/// once, and no step after the first one should create a buffer.
const STAGING_BUFFERS: usize = 8;
/// The largest staging buffer that is created together with others.
const SMALL_STAGING_BYTES: u64 = 1024;
/// The largest staging buffer that is kept for reuse, since whole tensors are rarely read.
const KEPT_STAGING_BYTES: u64 = 64 * 1024;

#[derive(Default)]
struct Blocks {
    allocator: Allocator,
    buffers: Vec<Buffer>,
}

/// The memory of tensors, and free staging buffers by size.
#[derive(Default)]
pub(crate) struct Pool {
    blocks: Mutex<Blocks>,
    staging: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
    /// Bytes of the blocks that were ever allocated.
    pub(crate) memory: MemoryCounter,
}

impl Pool {
    fn allocate(&self, context: &Context, bytes: usize) -> Result<(Buffer, Allocation)> {
        let len = (bytes.max(1) as u64).next_multiple_of(ALIGNMENT_BYTES);
        let mut blocks = lock(&self.blocks);
        let allocation = match blocks.allocator.allocate(len) {
            Some(allocation) => allocation,
            None => {
                let (raw, size) = create_block(context, bytes, len)?;
                blocks.buffers.push(Buffer {
                    raw,
                    number: next_storage_id(),
                });
                blocks.allocator.add_block(size);
                let allocation = blocks.allocator.allocate(len);
                allocation.expect("the new block has room")
            }
        };
        self.memory.add(allocation.touched);
        Ok((blocks.buffers[allocation.block].clone(), allocation))
    }

    /// A buffer of at least `bytes` bytes that the host can map.
    pub(crate) fn allocate_staging(&self, context: &Context, bytes: u64) -> Result<wgpu::Buffer> {
        let size = bytes.next_multiple_of(256).max(256);
        if let Some(buffer) = lock(&self.staging).get_mut(&size).and_then(Vec::pop) {
            return Ok(buffer);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        if size <= SMALL_STAGING_BYTES {
            for _ in 1..STAGING_BUFFERS {
                self.free_staging(context.create_buffer(size, usage)?);
            }
        }
        context.create_buffer(size, usage)
    }

    /// Keeps a small staging buffer for the next readback, and drops a large one.
    pub(crate) fn free_staging(&self, buffer: wgpu::Buffer) {
        let size = buffer.size();
        if size <= KEPT_STAGING_BYTES {
            lock(&self.staging).entry(size).or_default().push(buffer);
        }
    }
}

/// Creates a buffer for a tensor of `bytes` bytes, padded to `len`, and for others. Returns its
/// size.
fn create_block(context: &Context, bytes: usize, len: u64) -> Result<(wgpu::Buffer, u64)> {
    let limit = context.limits.max_buffer_size / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    if len > limit {
        return Err(Error::device(
            &context.name,
            format!(
                "a tensor has {bytes} bytes and the adapter allows {limit} per buffer; use a \
                 smaller batch or another device"
            ),
        ));
    }
    let preferred = if context.is_software && !IN_BROWSER {
        SOFTWARE_BLOCK_BYTES
    } else {
        BLOCK_BYTES
    };
    let size = preferred.clamp(len, limit);
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    match context.create_buffer(size, usage) {
        // There may still be memory for this tensor alone.
        Err(_) if size > len => Ok((context.create_buffer(len, usage)?, len)),
        created => Ok((created?, size)),
    }
}
