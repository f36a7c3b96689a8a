//! The memory of float tensors: regions of large blocks, as [`crate::device::allocator`] assigns
//! them. After the first training step, no memory is requested from the system.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::allocator::{ALIGNMENT_BYTES, Allocation, Allocator};
use crate::device::memory::{MemoryCounter, MemoryUse};

const FLOAT_BYTES: u64 = size_of::<f32>() as u64;

/// Floats per block; a larger tensor gets a larger block. Most systems provide a page only when it
/// is touched, and the untouched part of a block is its largest free region, which is allocated
/// last. So a block may be larger than the memory in use. If the system refuses a block, half the
/// size is tried, down to the size of the tensor.
const BLOCK_FLOATS: usize = if usize::BITS < 64 { 16 << 20 } else { 1 << 30 };

/// Allocates the floats of tensors.
#[derive(Default)]
pub(crate) struct Arena {
    blocks: Mutex<Blocks>,
    pub(crate) memory: MemoryCounter,
}

#[derive(Default)]
struct Blocks {
    allocator: Allocator,
    memory: Vec<Block>,
}

/// Alignment of buffers: a cache line, so that no vector crosses two.
pub(crate) const LINE_BYTES: usize = 64;

struct Block {
    memory: NonNull<u8>,
    layout: Layout,
    /// The first aligned float. Initially, all floats are 0.
    floats: NonNull<f32>,
    /// Bytes of the floats.
    bytes: u64,
}

// SAFETY: a block owns its floats, and its regions do not overlap.
unsafe impl Send for Block {}

impl Block {
    /// A block of at least `floats` floats, which is not 0.
    fn of_at_least(floats: usize) -> Self {
        let mut len = BLOCK_FLOATS.max(floats);
        loop {
            if let Some(block) = Self::new(len) {
                return block;
            }
            if len == floats {
                match Layout::array::<f32>(floats) {
                    Ok(layout) => handle_alloc_error(layout),
                    // No input causes this: shapes are checked before memory is allocated.
                    Err(_) => panic!("{floats} floats exceed the address space"),
                }
            }
            len = (len / 2).max(floats);
        }
    }

    /// Returns `None` if the system refuses `len` floats.
    fn new(len: usize) -> Option<Self> {
        let floats = Layout::array::<f32>(len).ok()?;
        // With an alignment in the layout, the system allocator might write the zeros itself and so
        // touch every page.
        let (layout, _) = floats.extend(Layout::array::<u8>(LINE_BYTES).ok()?).ok()?;
        // SAFETY: the layout has a size, since no block is empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let before = memory.align_offset(LINE_BYTES);
        assert!(before < LINE_BYTES, "a pointer to bytes can be aligned");
        Some(Block {
            memory,
            layout,
            // SAFETY: the layout has `LINE_BYTES` bytes besides the floats, and `before` is
            // smaller.
            floats: unsafe { memory.add(before) }.cast(),
            bytes: floats.size() as u64,
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout. No buffer points to it any more,
        // because each buffer holds the arena and so this block.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl Arena {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `len` floats with undefined content.
    pub(crate) fn allocate(self: &Arc<Self>, len: usize) -> Buffer {
        let bytes = (FLOAT_BYTES * len as u64).next_multiple_of(ALIGNMENT_BYTES);
        if bytes == 0 {
            return Buffer {
                floats: NonNull::dangling(),
                len: 0,
                owner: None,
            };
        }
        let mut blocks = self.blocks();
        let allocation = blocks.allocator.allocate(bytes).unwrap_or_else(|| {
            let block = Block::of_at_least((bytes / FLOAT_BYTES) as usize);
            blocks.allocator.add_block(block.bytes);
            blocks.memory.push(block);
            let allocation = blocks.allocator.allocate(bytes);
            allocation.expect("the new block has room")
        });
        self.memory.add(allocation.touched);
        let start = (allocation.region.start / FLOAT_BYTES) as usize;
        Buffer {
            // SAFETY: the region is a part of the block's floats.
            floats: unsafe { blocks.memory[allocation.block].floats.add(start) },
            len,
            owner: Some((self.clone(), allocation)),
        }
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.memory.read()
    }
}

/// Floats of an arena. They are freed when the buffer is dropped.
pub(crate) struct Buffer {
    floats: NonNull<f32>,
    len: usize,
    /// `None` if there are no floats.
    owner: Option<(Arc<Arena>, Allocation)>,
}

// SAFETY: no other buffer points to these floats, and any thread may read and write them.
unsafe impl Send for Buffer {}
// SAFETY: as above, and a shared buffer gives shared access only.
unsafe impl Sync for Buffer {}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the region belongs to this buffer alone, its floats were initialised with the
        // block, and the block lives as long as the arena, which `owner` holds. Without owner,
        // `len` is 0.
        unsafe { NonNull::slice_from_raw_parts(self.floats, self.len).as_ref() }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and the buffer is borrowed exclusively.
        unsafe { NonNull::slice_from_raw_parts(self.floats, self.len).as_mut() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((arena, Allocation { block, region, .. })) = &self.owner {
            arena.blocks().allocator.free(*block, *region);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Philox;

    /// Allocates and frees thousands of buffers of random sizes in random order. Each keeps its
    /// numbers.
    #[test]
    fn buffers_never_overlap() {
        let arena = Arc::new(Arena::default());
        let mut rng = Philox::new(3, [0; 3]);
        let mut held: Vec<(f32, Buffer)> = Vec::new();
        for round in 0..4_000 {
            if held.len() > 60 || (rng.below(3) == 0 && !held.is_empty()) {
                let at = rng.below(held.len() as u32) as usize;
                let (mark, buffer) = held.swap_remove(at);
                assert!(buffer.iter().all(|&x| x == mark));
                continue;
            }
            let len = match rng.below(40) {
                0 => 0,
                1 => 1_000_000 + rng.below(1000) as usize,
                _ => 1 + rng.below(20_000) as usize,
            };
            let mut buffer = arena.allocate(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(round as f32);
            held.push((round as f32, buffer));
        }
        for (mark, buffer) in &held {
            assert!(buffer.iter().all(|x| x == mark));
        }
    }

    #[test]
    fn freed_small_buffers_serve_a_large_one() {
        let arena = Arc::new(Arena::default());
        let small: Vec<Buffer> = (0..8).map(|_| arena.allocate(1024)).collect();
        let held = arena.memory();
        assert_eq!((held.current, held.peak), (4 * 8192, 4 * 8192));
        drop(small);
        let _large = arena.allocate(8192);
        assert_eq!(arena.memory(), held);
    }
}
