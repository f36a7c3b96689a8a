//! GPU memory: the storage of tensors, the buffers that contain it, and the staging buffers of
//! readbacks.
//!
//! One buffer holds many tensors, and a kernel may read one of them and write another. wgpu allows
//! a single usage of a buffer per dispatch. Therefore `build.rs` declares all storage bindings as
//! `read_write`, and a launch fails if a tensor that its kernel writes overlaps another binding.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::context::{Context, lock};
use super::stream::Part;
use super::{Gpu, GpuReadback, PackedCopies};
use crate::device::IN_BROWSER;
use crate::device::allocator::{ALIGNMENT_BYTES, Allocation, Allocator};
use crate::device::memory::{MemoryBlock, MemoryCounter, next_storage_id};
use crate::error::{Error, Result};

/// A buffer with a unique number, which is a part of the keys of cached bind groups.
#[derive(Clone)]
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) number: u64,
}

/// A region of a buffer, which is freed when it is dropped.
struct Allocated {
    buffer: Buffer,
    allocation: Allocation,
    /// Number of writes.
    version: AtomicU64,
    context: Arc<Context>,
}

impl Drop for Allocated {
    /// The region can be reused at once: kernels run in the order in which they were recorded, and
    /// a write by the host runs after them ([`Context::write`]).
    fn drop(&mut self) {
        let mut blocks = lock(&self.context.pool.blocks);
        let Allocation { block, region, .. } = self.allocation;
        blocks.allocator.free(block, region);
    }
}

/// The bytes of a tensor: an allocated region, or a part of one that several tensors share.
#[derive(Clone)]
struct Place {
    allocated: Arc<Allocated>,
    offset: u64,
    size: u64,
}

/// A place for one more tensor, and the tensor that is there, if there is one.
struct Slot {
    place: Place,
    tensor: Weak<GpuStorage>,
}

/// The elements of one tensor. Its place is a multiple of 256 bytes, so the last vec4 of a kernel
/// may contain padding.
pub(crate) struct GpuStorage {
    id: u64,
    place: Mutex<Place>,
    slot: Mutex<Option<Slot>>,
    copies: Mutex<Option<Arc<PackedCopies>>>,
    context: Arc<Context>,
}

impl GpuStorage {
    /// Allocates `bytes` bytes with undefined content.
    pub(crate) fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let (buffer, allocation) = context.pool.allocate(context, bytes)?;
        let place = Place {
            offset: allocation.region.start,
            size: allocation.region.len,
            allocated: Arc::new(Allocated {
                buffer,
                allocation,
                version: AtomicU64::new(0),
                context: context.clone(),
            }),
        };
        Ok(GpuStorage::at(place, context))
    }

    fn at(place: Place, context: &Arc<Context>) -> Self {
        GpuStorage {
            id: next_storage_id(),
            place: Mutex::new(place),
            slot: Mutex::default(),
            copies: Mutex::default(),
            context: context.clone(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn gpu(&self) -> Gpu {
        Gpu {
            context: self.context.clone(),
            results: Vec::new(),
        }
    }

    /// Replaces the first bytes of the tensor.
    pub(crate) fn overwrite(&self, bytes: &[u8]) -> Result<()> {
        self.written();
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

    /// The whole place, including padding.
    pub(crate) fn whole(&self) -> Part {
        let place = lock(&self.place);
        Part {
            buffer: place.allocated.buffer.clone(),
            offset: place.offset,
            size: place.size,
        }
    }

    /// `bytes` bytes of this place from `start` on, a multiple of 256, and the padding after them.
    fn part(&self, start: u64, bytes: usize) -> Place {
        let place = lock(&self.place);
        Place {
            allocated: place.allocated.clone(),
            offset: place.offset + start,
            size: (bytes.max(1) as u64).next_multiple_of(ALIGNMENT_BYTES),
        }
    }

    /// A tensor of `bytes` bytes in the memory of this one, from byte `start` on.
    pub(crate) fn inside(&self, start: u64, bytes: usize) -> Self {
        GpuStorage::at(self.part(start, bytes), &self.context)
    }

    /// From now on, the elements are those in the memory of `whole` from byte `start` on.
    pub(crate) fn move_into(&self, whole: &GpuStorage, start: u64, bytes: usize) {
        let place = whole.part(start, bytes);
        *lock(&self.place) = place;
    }

    /// Whether the elements are in the memory of `whole` from byte `start` on.
    pub(crate) fn is_inside(&self, whole: &GpuStorage, start: u64) -> bool {
        let (own, whole) = (self.whole(), whole.whole());
        own.buffer.number == whole.buffer.number && own.offset == whole.offset + start
    }

    /// Counts a write to this tensor.
    pub(crate) fn written(&self) {
        let place = lock(&self.place);
        place.allocated.version.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of writes to the region of this tensor, by which copies are found to be outdated.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.place).allocated.version.load(Ordering::Relaxed)
    }

    pub(crate) fn copies(&self) -> Option<Arc<PackedCopies>> {
        lock(&self.copies).clone()
    }

    pub(crate) fn set_copies(&self, copies: Arc<PackedCopies>) {
        *lock(&self.copies) = Some(copies);
    }

    /// Makes `bytes` bytes of `whole` from byte `start` on the slot of this tensor.
    pub(crate) fn set_slot(&self, whole: &GpuStorage, start: u64, bytes: usize) {
        *lock(&self.slot) = Some(Slot {
            place: whole.part(start, bytes),
            tensor: Weak::new(),
        });
    }

    /// A new tensor in the slot of this one. `None` if there is no slot, or a tensor in it.
    pub(crate) fn in_slot(&self) -> Option<Arc<GpuStorage>> {
        let mut slot = lock(&self.slot);
        let slot = slot
            .as_mut()
            .filter(|slot| slot.tensor.strong_count() == 0)?;
        let storage = Arc::new(GpuStorage::at(slot.place.clone(), &self.context));
        slot.tensor = Arc::downgrade(&storage);
        Some(storage)
    }
}

/// Bytes per block on a hardware adapter; a larger tensor gets a larger block. Small enough to
/// waste little memory in the last block.
const BLOCK_BYTES: u64 = 128 << 20;
/// Bytes of the largest blocks of an adapter with memory of its own, whose blocks double: a tensor
/// finds room in a few large blocks more often than in many small ones.
const LARGEST_BLOCK_BYTES: u64 = 2 << 30;
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
                let (raw, size) = create_block(context, (bytes, len), blocks.buffers.len())?;
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

    /// The blocks, in the order in which they were added.
    pub(crate) fn blocks(&self) -> Vec<MemoryBlock> {
        lock(&self.blocks).allocator.blocks()
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

/// Creates a buffer for a tensor of `bytes` bytes, padded to `len`, and for others. There are
/// `blocks` buffers already. Returns its size.
fn create_block(
    context: &Context,
    (bytes, len): (usize, u64),
    blocks: usize,
) -> Result<(wgpu::Buffer, u64)> {
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
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let kind = [
        context.is_software && !IN_BROWSER,
        context.in_host_memory || IN_BROWSER,
    ];
    let mut size = block_bytes(kind, blocks).clamp(len, limit);
    loop {
        match context.create_buffer(size, usage) {
            // There may still be memory for a smaller block.
            Err(_) if size > len => size = (size / 2).next_multiple_of(ALIGNMENT_BYTES).max(len),
            created => return Ok((created?, size)),
        }
    }
}

/// The preferred size of a block of an adapter that is software or uses the host's memory, if there
/// are `blocks` already.
fn block_bytes([is_software, in_host_memory]: [bool; 2], blocks: usize) -> u64 {
    if is_software {
        SOFTWARE_BLOCK_BYTES
    } else if in_host_memory {
        BLOCK_BYTES
    } else {
        (BLOCK_BYTES << blocks.min(8)).min(LARGEST_BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::block_bytes;

    #[test]
    fn the_blocks_of_a_card_double() {
        let mib = |kind, blocks| block_bytes(kind, blocks) >> 20;
        let card = [0, 1, 2, 3, 4, 5, 99].map(|blocks| mib([false, false], blocks));
        assert_eq!(card, [128, 256, 512, 1024, 2048, 2048, 2048]);
        assert_eq!([0, 9].map(|blocks| mib([false, true], blocks)), [128; 2]);
        assert_eq!(mib([true, true], 0), 2048);
    }
}
