//! The memory of float tensors: large blocks, of which every tensor takes a span. A span that is given back joins the free
//! spans beside it, so that the memory of many small tensors serves one large tensor later: what a training step holds is
//! close to what it uses at its fullest moment, and from the second step on nothing is asked of the system.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::kernels::MemoryUse;
use crate::device::memory::MemoryCounter;

/// Spans are multiples of this many floats: a cache line.
const UNIT: usize = 16;
/// Floats of a block, or more for a larger tensor. It is long, so that large spans find room in it; most systems give pages
/// only where they are touched. Where one refuses so long a block, it is as long as the tensor that asks.
const BLOCK: usize = if usize::BITS < 64 {
    16 << 20
} else {
    256 << 20
};

/// Where tensors' floats come from.
#[derive(Default)]
pub(super) struct Arena {
    blocks: Mutex<Vec<Block>>,
    pub(super) memory: MemoryCounter,
}

/// A part of a block, in floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    len: usize,
}

struct Block {
    /// Zeros at first, from the allocator, which `Drop` gives them back to.
    floats: NonNull<f32>,
    layout: Layout,
    /// By their start, no two touching.
    free: Vec<Span>,
    /// Floats from the start on that were ever in use.
    touched: usize,
}

// SAFETY: a block owns its floats; its pointer is only handed out in spans that do not overlap.
unsafe impl Send for Block {}

impl Block {
    /// A block for a span of `span` floats, which is not 0, and for others.
    fn for_span(span: usize) -> Self {
        Self::new(BLOCK.max(span)).unwrap_or_else(|| {
            let layout = Layout::array::<f32>(span);
            Self::new(span).unwrap_or_else(|| match layout {
                Ok(layout) => handle_alloc_error(layout),
                // Not from input: shapes are checked before anything is taken.
                Err(_) => panic!("a tensor of {span} floats is larger than any memory"),
            })
        })
    }

    /// None where the system refuses `len` floats.
    fn new(len: usize) -> Option<Self> {
        let layout = Layout::array::<f32>(len).ok()?;
        // SAFETY: the layout has a size, since no block is empty.
        let floats = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Block {
            floats: floats.cast(),
            layout,
            free: vec![Span { start: 0, len }],
            touched: 0,
        })
    }

    /// The smallest free span that holds `len` floats, the first of them where several are equal.
    fn take(&mut self, len: usize) -> Option<usize> {
        let fitting = self.free.iter().enumerate();
        let fitting = fitting.filter(|(_, span)| span.len >= len);
        let (place, _) = fitting.min_by_key(|(_, span)| span.len)?;
        let span = &mut self.free[place];
        let start = span.start;
        if span.len == len {
            self.free.remove(place);
        } else {
            *span = Span {
                start: start + len,
                len: span.len - len,
            };
        }
        Some(start)
    }

    fn give_back(&mut self, span: Span) {
        let place = self.free.partition_point(|free| free.start < span.start);
        let end = span.start + span.len;
        let joins_next = self.free.get(place).is_some_and(|next| next.start == end);
        let joins_last = place > 0 && {
            let last = self.free[place - 1];
            last.start + last.len == span.start
        };
        match (joins_last, joins_next) {
            (true, true) => {
                self.free[place - 1].len += span.len + self.free[place].len;
                self.free.remove(place);
            }
            (true, false) => self.free[place - 1].len += span.len,
            (false, true) => {
                self.free[place] = Span {
                    start: span.start,
                    len: span.len + self.free[place].len,
                };
            }
            (false, false) => self.free.insert(place, span),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the floats came from the allocator with this layout, and every buffer that pointed into them holds the
        // arena and so this block: none is left.
        unsafe { dealloc(self.floats.as_ptr().cast(), self.layout) };
    }
}

impl Arena {
    fn blocks(&self) -> MutexGuard<'_, Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` floats whose content is whatever they last held.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let span = len.next_multiple_of(UNIT);
        if span == 0 {
            return Buffer {
                floats: NonNull::dangling(),
                len: 0,
                place: None,
            };
        }
        let mut blocks = self.blocks();
        let found = blocks
            .iter_mut()
            .enumerate()
            .find_map(|(number, block)| block.take(span).map(|start| (number, start)));
        let (number, start) = found.unwrap_or_else(|| {
            let mut block = Block::for_span(span);
            let start = block.take(span).expect("the block is as large as the span");
            blocks.push(block);
            (blocks.len() - 1, start)
        });
        let block = &mut blocks[number];
        let end = start + span;
        if end > block.touched {
            self.memory.add(4 * (end - block.touched) as u64);
            block.touched = end;
        }
        Buffer {
            // SAFETY: the span lies in the block's floats.
            floats: unsafe { block.floats.add(start) },
            len,
            place: Some(Place {
                arena: self.clone(),
                block: number,
                span: Span { start, len: span },
            }),
        }
    }

    pub(super) fn memory(&self) -> MemoryUse {
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
pub(super) struct Buffer {
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
            place.arena.blocks()[place.block].give_back(place.span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::philox::Philox;

    /// Thousands of buffers of random sizes, taken and given back in random order: none ever sees another's numbers, and
    /// in the end every block is one free span again.
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
        held.clear();
        for block in arena.blocks().iter() {
            let whole = Span {
                start: 0,
                len: block.layout.size() / 4,
            };
            assert_eq!(block.free, [whole]);
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
