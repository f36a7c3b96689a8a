//! The memory of float tensors: large blocks, of which every tensor takes a span. A span that is given back joins the
//! free spans beside it, so that the memory of many small tensors serves one large tensor later: what a training step
//! holds is close to what it uses at its fullest moment, and from the second step on nothing is asked of the system.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::allocator::{Span, Spans, UNIT};
use crate::device::memory::{MemoryCounter, MemoryUse};

/// Bytes of a float.
const FLOAT: u64 = size_of::<f32>() as u64;

/// Floats of a block, or more for a larger tensor. It is so long that what was never touched stays the longest free
/// span, and is taken last: most systems give pages only where they are touched. Where one refuses so long a block, it
/// is half as long, and so on down to the tensor that asks.
const BLOCK: usize = if usize::BITS < 64 { 16 << 20 } else { 1 << 30 };

/// Where tensors' floats come from.
#[derive(Default)]
pub(crate) struct Arena {
    blocks: Mutex<Blocks>,
    pub(crate) memory: MemoryCounter,
}

/// The places in the blocks, and their memory.
#[derive(Default)]
struct Blocks {
    spans: Spans,
    memory: Vec<Block>,
}

/// Bytes that every buffer begins at a multiple of: a line of the cache, so that no vector lies in two.
pub(crate) const LINE: usize = 64;

struct Block {
    /// From the allocator, which `Drop` gives it back to.
    memory: NonNull<u8>,
    layout: Layout,
    /// The first float that begins a line; zeros at first.
    floats: NonNull<f32>,
    /// Of the floats.
    bytes: u64,
}

// SAFETY: a block owns its floats; its pointer is only handed out in spans that do not overlap.
unsafe impl Send for Block {}

impl Block {
    /// A block for a span of `span` floats, which is not 0, and for others.
    fn for_span(span: usize) -> Self {
        let mut len = BLOCK.max(span);
        loop {
            if let Some(block) = Self::new(len) {
                return block;
            }
            if len == span {
                match Layout::array::<f32>(span) {
                    Ok(layout) => handle_alloc_error(layout),
                    // Not from input: shapes are checked before anything is taken.
                    Err(_) => panic!("a tensor of {span} floats is larger than any memory"),
                }
            }
            len = (len / 2).max(span);
        }
    }

    /// None where the system refuses `len` floats.
    fn new(len: usize) -> Option<Self> {
        let floats = Layout::array::<f32>(len).ok()?;
        // Room to begin at a line: an allocator that is asked for the alignment may write all the zeros itself, and so
        // touch every page.
        let (layout, _) = floats.extend(Layout::array::<u8>(LINE).ok()?).ok()?;
        // SAFETY: the layout has a size, since no block is empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let before = memory.align_offset(LINE);
        assert!(before < LINE, "a pointer to bytes can be aligned");
        Some(Block {
            memory,
            layout,
            // SAFETY: `before` is less than `LINE`, which the layout has beside the floats.
            floats: unsafe { memory.add(before) }.cast(),
            bytes: floats.size() as u64,
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the memory came from the allocator with this layout, and every buffer that pointed into them holds
        // the arena and so this block: none is left.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl Arena {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` floats whose content is whatever they last held.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let bytes = (FLOAT * len as u64).next_multiple_of(UNIT);
        if bytes == 0 {
            return Buffer {
                floats: NonNull::dangling(),
                len: 0,
                place: None,
            };
        }
        let mut blocks = self.blocks();
        let taken = blocks.spans.take(bytes).unwrap_or_else(|| {
            let block = Block::for_span((bytes / FLOAT) as usize);
            blocks.spans.add(block.bytes);
            blocks.memory.push(block);
            let taken = blocks.spans.take(bytes);
            taken.expect("the block is as large as the span")
        });
        self.memory.add(taken.touched);
        let start = (taken.span.start / FLOAT) as usize;
        Buffer {
            // SAFETY: the span lies in the block's floats.
            floats: unsafe { blocks.memory[taken.block].floats.add(start) },
            len,
            place: Some(Place {
                arena: self.clone(),
                block: taken.block,
                span: taken.span,
            }),
        }
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.memory.read()
    }
}

/// Where a buffer goes back to.
struct Place {
    arena: Arc<Arena>,
    block: usize,
    span: Span,
}

/// Floats of an arena, which get them back when this is dropped.
pub(crate) struct Buffer {
    floats: NonNull<f32>,
    len: usize,
    /// None where there are no floats.
    place: Option<Place>,
}

// SAFETY: a buffer is the only one that points to its floats, and they may be read and written from any thread.
unsafe impl Send for Buffer {}
// SAFETY: as above; a shared buffer only gives shared access.
unsafe impl Sync for Buffer {}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the span is this buffer's alone, its floats were initialised with the block, and the block lives as
        // long as the arena, which `place` holds. Without a place the length is 0.
        unsafe { NonNull::slice_from_raw_parts(self.floats, self.len).as_ref() }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and the buffer is borrowed alone.
        unsafe { NonNull::slice_from_raw_parts(self.floats, self.len).as_mut() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place
                .arena
                .blocks()
                .spans
                .give_back(place.block, place.span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Philox;

    /// Thousands of buffers of random sizes, taken and given back in random order: none ever sees another's numbers.
    #[test]
    fn buffers_never_overlap_and_free_spans_join() {
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
            let mut buffer = arena.take(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(round as f32);
            held.push((round as f32, buffer));
        }
        for (mark, buffer) in &held {
            assert!(buffer.iter().all(|x| x == mark));
        }
    }

    #[test]
    fn small_spans_serve_a_large_tensor_later() {
        let arena = Arc::new(Arena::default());
        let small: Vec<Buffer> = (0..8).map(|_| arena.take(1024)).collect();
        let held = arena.memory();
        assert_eq!((held.current, held.peak), (4 * 8192, 4 * 8192));
        drop(small);
        let _large = arena.take(8192);
        assert_eq!(arena.memory(), held);
    }
}
