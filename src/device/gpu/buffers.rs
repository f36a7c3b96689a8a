//! GPU memory: tensors' storage, the buffers that it lies in, and the staging buffers of readbacks.
//!
//! Two tensors of a kernel may lie in one buffer. wgpu gives a buffer one use in a dispatch, and where one part of it
//! is written that use is to be written: `build.rs` makes every storage binding such a one, and a launch sees to it
//! that nothing that its kernel writes is bound twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::context::{Context, lock};
use super::stream::Part;
use super::{Gpu, GpuReadback};
use crate::device::Readback;
use crate::device::allocator::{Span, Spans, Taken, UNIT};
use crate::device::memory::{MemoryCounter, next_storage_id};
use crate::error::{Error, Result};

/// A buffer with a number of its own, by which bind groups are cached.
#[derive(Clone)]
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) number: u64,
}

/// The elements of one tensor. The span is a multiple of 256 bytes, so that the last vec4 of a kernel may touch
/// padding.
pub(crate) struct GpuStorage {
    id: u64,
    buffer: Buffer,
    block: usize,
    span: Span,
    context: Arc<Context>,
}

impl GpuStorage {
    /// Memory for `bytes` bytes whose content is not defined.
    pub(crate) fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let (buffer, taken) = context.pool.take(context, bytes)?;
        Ok(GpuStorage {
            id: next_storage_id(),
            buffer,
            block: taken.block,
            span: taken.span,
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

    /// Replaces the first bytes.
    pub(crate) fn overwrite(&self, bytes: &[u8]) -> Result<()> {
        self.context.write(&self.whole(), bytes)
    }

    /// Starts the transfer of the first `bytes` bytes to the host.
    pub(crate) fn read(&self, bytes: usize) -> Result<Readback> {
        GpuReadback::start(&self.context, &self.whole(), bytes).map(Readback::from_gpu)
    }

    /// Whether the tensor is on the device of `context`.
    pub(crate) fn is_on(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// All of it, with the padding.
    pub(crate) fn whole(&self) -> Part {
        Part {
            buffer: self.buffer.clone(),
            offset: self.span.start,
            size: self.span.len,
        }
    }
}

impl Drop for GpuStorage {
    /// The span can be used again at once: kernels run in the order in which they were recorded, and what the host
    /// writes comes behind all that was recorded before ([`Context::write`]).
    fn drop(&mut self) {
        let mut blocks = lock(&self.context.pool.blocks);
        blocks.spans.give_back(self.block, self.span);
    }
}

/// Bytes of a block, or more for a larger tensor. It holds many tensors of most kinds; of the last one, a part is not
/// used.
const BLOCK: u64 = 128 << 20;
/// The same for an adapter that is software, which takes memory as it is touched: the longer a block, the better large
/// spans find room in it. Adapters have no longer buffers.
const BLOCK_OF_SOFTWARE: u64 = 2 << 30;
/// Staging buffers of a size that are made together: readbacks of several steps are under way at once, and only the
/// first step is to make buffers.
const STAGING_AT_ONCE: usize = 8;
/// The largest staging buffer that is made with others.
const SMALL_STAGING: u64 = 1024;

/// The places in the blocks, and the buffers that these are.
#[derive(Default)]
struct Blocks {
    spans: Spans,
    buffers: Vec<Buffer>,
}

/// Tensors' memory, and free staging buffers by size.
#[derive(Default)]
pub(crate) struct Pool {
    blocks: Mutex<Blocks>,
    staging: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
    /// Bytes of the blocks that were ever in use.
    pub(crate) memory: MemoryCounter,
}

impl Pool {
    fn take(&self, context: &Context, bytes: usize) -> Result<(Buffer, Taken)> {
        let len = (bytes.max(1) as u64).next_multiple_of(UNIT);
        let mut blocks = lock(&self.blocks);
        let taken = match blocks.spans.take(len) {
            Some(taken) => taken,
            None => {
                let (raw, size) = block(context, bytes, len)?;
                blocks.buffers.push(Buffer {
                    raw,
                    number: next_storage_id(),
                });
                blocks.spans.add(size);
                let taken = blocks.spans.take(len);
                taken.expect("the block is as large as the span")
            }
        };
        self.memory.add(taken.touched);
        Ok((blocks.buffers[taken.block].clone(), taken))
    }

    /// A buffer that the host can map, of `bytes` bytes or more.
    pub(crate) fn take_staging(&self, context: &Context, bytes: u64) -> Result<wgpu::Buffer> {
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
    pub(crate) fn give_back_staging(&self, buffer: wgpu::Buffer) {
        if buffer.size() <= 64 * 1024 {
            lock(&self.staging)
                .entry(buffer.size())
                .or_default()
                .push(buffer);
        }
    }
}

/// A buffer for a tensor of `bytes` bytes, rounded up to `len`, and for others.
fn block(context: &Context, bytes: usize, len: u64) -> Result<(wgpu::Buffer, u64)> {
    let limit = context.limits.max_buffer_size / UNIT * UNIT;
    if len > limit {
        return Err(Error::device(
            &context.name,
            format!(
                "a tensor of {bytes} bytes is larger than the adapter's largest buffer, {limit} bytes; use a smaller batch \
                 or another device"
            ),
        ));
    }
    let block = match context.is_software {
        true => BLOCK_OF_SOFTWARE,
        false => BLOCK,
    };
    let size = block.clamp(len, limit);
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    match context.create_buffer(size, usage) {
        // Where so large a block is refused, one for this tensor may not be.
        Err(_) if size > len => Ok((context.create_buffer(len, usage)?, len)),
        made => Ok((made?, size)),
    }
}
