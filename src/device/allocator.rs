//! Places of tensors in a device's memory: every tensor is a region of one of a few large blocks.
//! This module assigns the places; the memory itself belongs to `cpu/arena.rs` and
//! `gpu/buffers.rs`.
//!
//! A freed region is merged with its free neighbours, so the memory of many small tensors serves a
//! large tensor later: a training step holds little more than its peak use.

use super::memory::MemoryBlock;

/// Sizes of regions are multiples of this number: the largest offset alignment that WebGPU allows
/// an adapter to require.
pub(crate) const ALIGNMENT_BYTES: u64 = 256;
/// Regions up to this size are allocated at the end of a block's last free region that is large
/// enough, and larger ones at the start of the best fit. This separates the gradients of weights,
/// which are small and long-lived, from activations, which are large and short-lived.
const SMALL_BYTES: u64 = 512 << 10;

/// A part of a block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Region {
    fn end(self) -> u64 {
        self.start + self.len
    }
}

#[derive(Debug)]
struct Block {
    len: u64,
    /// Sorted by start. No two are adjacent.
    free: Vec<Region>,
    /// The part that was never allocated, which is contained in one free region.
    untouched: Region,
}

impl Block {
    fn new(len: u64) -> Self {
        let whole = Region { start: 0, len };
        Block {
            len,
            free: vec![whole],
            untouched: whole,
        }
    }

    fn is_unused(&self) -> bool {
        self.free.first().is_some_and(|free| free.len == self.len)
    }

    /// The length of the smallest free region of at least `len` bytes.
    fn best_fit(&self, len: u64) -> Option<u64> {
        let lengths = self.free.iter().map(|free| free.len);
        lengths.filter(|&free| free >= len).min()
    }

    /// Allocates `len` bytes. `best_fit` is the result of [`Block::best_fit`]. Of several equal
    /// fits, the last is used: the first ones are between older tensors, which live long.
    fn allocate(&mut self, best_fit: u64, len: u64) -> Region {
        let is_small = len <= SMALL_BYTES;
        let fits = |free: &Region| free.len == best_fit || is_small && free.len >= len;
        let place = self.free.iter().rposition(fits);
        let place = place.expect("a free region has `best_fit` bytes");
        let free = &mut self.free[place];
        free.len -= len;
        let mut start = free.start;
        if is_small {
            start += free.len;
        } else {
            free.start += len;
        }
        if free.len == 0 {
            self.free.remove(place);
        }
        Region { start, len }
    }

    /// Removes `region` from the untouched part. Returns the number of bytes removed.
    fn touch(&mut self, region: Region) -> u64 {
        let before = self.untouched;
        let end = before.end();
        if region.end() <= before.start || end <= region.start {
            return 0;
        }
        if region.len <= SMALL_BYTES {
            self.untouched.len = region.start.saturating_sub(before.start);
        } else {
            self.untouched.start = region.end().min(end);
            self.untouched.len = end - self.untouched.start;
        }
        before.len - self.untouched.len
    }

    fn free(&mut self, region: Region) {
        let place = self.free.partition_point(|free| free.start < region.start);
        self.free.insert(place, region);
        self.merge_with_next(place);
        if place > 0 {
            self.merge_with_next(place - 1);
        }
    }

    fn merge_with_next(&mut self, place: usize) {
        let free = self.free[place];
        if let Some(next) = self.free.get(place + 1)
            && free.end() == next.start
        {
            self.free[place].len += next.len;
            self.free.remove(place + 1);
        }
    }
}

/// The blocks of a device, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    blocks: Vec<Block>,
}

/// An allocated region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) block: usize,
    pub(super) region: Region,
    /// Bytes of the region that were never allocated before.
    pub(super) touched: u64,
}

impl Allocator {
    /// Adds a block of `len` bytes.
    pub(super) fn add_block(&mut self, len: u64) {
        self.blocks.push(Block::new(len));
    }

    /// Allocates `len` bytes, a nonzero multiple of [`ALIGNMENT_BYTES`]. Returns `None` if no block
    /// has room.
    ///
    /// A small region is allocated in the last block in use that has room, a large one in the block
    /// in use that has the best fit. An unused block is the last resort. So the same requests in
    /// the same order get the same regions in every step, whether their blocks exist already or
    /// not, and their bind groups are found in the cache.
    pub(super) fn allocate(&mut self, len: u64) -> Option<Allocation> {
        let count = self.blocks.len() as u64;
        let candidates = (0..).zip(&self.blocks).filter_map(|(number, block)| {
            let best_fit = block.best_fit(len)?;
            let rank = match (block.is_unused(), len <= SMALL_BYTES) {
                (true, _) => 0,
                (false, false) => best_fit,
                (false, true) => count - number as u64,
            };
            Some((block.is_unused(), rank, number, best_fit))
        });
        let (_, _, number, best_fit) = candidates.min()?;
        let block = &mut self.blocks[number];
        let region = block.allocate(best_fit, len);
        Some(Allocation {
            block: number,
            region,
            touched: block.touch(region),
        })
    }

    pub(super) fn free(&mut self, block: usize, region: Region) {
        self.blocks[block].free(region);
    }

    /// The sizes of the blocks and of their free regions.
    pub(super) fn blocks(&self) -> Vec<MemoryBlock> {
        let of = |block: &Block| {
            let free = || block.free.iter().map(|free| free.len);
            MemoryBlock {
                bytes: block.len,
                free: free().sum(),
                largest_free: free().max().unwrap_or(0),
            }
        };
        self.blocks.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT_BYTES as UNIT, SMALL_BYTES as SMALL, *};
    use crate::philox::Philox;

    fn allocate(block: &mut Block, len: u64) -> Region {
        let best_fit = block.best_fit(len).expect("there is room");
        block.allocate(best_fit, len)
    }

    #[test]
    fn freed_regions_are_merged() {
        let mut block = Block::new(8 * SMALL);
        let [a, b, c] = [1, 3, 4].map(|times| allocate(&mut block, times * SMALL));
        // The small region is at the end, the large ones at the start.
        assert_eq!([a.start, b.start, c.start], [7 * SMALL, 0, 3 * SMALL]);
        assert!(block.free.is_empty() && block.best_fit(UNIT).is_none());
        block.free(b);
        block.free(a);
        assert_eq!(block.free, [b, a]);
        block.free(c);
        let whole = Region {
            start: 0,
            len: 8 * SMALL,
        };
        assert_eq!(block.free, [whole]);
        assert!(block.is_unused());
    }

    #[test]
    fn the_memory_of_many_small_tensors_serves_a_large_one() {
        let mut arena = Allocator::default();
        arena.add_block(8 * SMALL);
        let small = [(); 3].map(|()| arena.allocate(2 * SMALL).unwrap());
        assert_eq!(small.map(|small| small.touched), [2 * SMALL; 3]);
        for small in small {
            arena.free(small.block, small.region);
        }
        let large = arena.allocate(6 * SMALL).unwrap();
        assert_eq!((large.region.start, large.touched), (0, 0));
        assert_eq!(arena.allocate(3 * SMALL), None);
    }

    #[test]
    fn only_the_first_use_of_a_byte_counts_as_touched() {
        let mut arena = Allocator::default();
        arena.add_block(8 * SMALL);
        let large = arena.allocate(2 * SMALL).unwrap();
        let small = arena.allocate(UNIT).unwrap();
        assert_eq!((large.touched, small.touched), (2 * SMALL, UNIT));
        assert_eq!(small.region.start, 8 * SMALL - UNIT);
        // The hole of the freed region fits better than the untouched part.
        let behind = arena.allocate(3 * SMALL).unwrap();
        arena.free(large.block, large.region);
        let again = arena.allocate(SMALL + UNIT).unwrap();
        assert_eq!((again.region.start, again.touched), (0, 0));
        arena.free(behind.block, behind.region);
        // This region begins in used memory and ends in the untouched part.
        let last = arena.allocate(5 * SMALL).unwrap();
        assert_eq!(last.region.start, SMALL + UNIT);
        assert_eq!(last.touched, SMALL + UNIT);
        // The remaining part, up to the small region at the end.
        let rest = arena.allocate(2 * SMALL - 2 * UNIT).unwrap();
        assert_eq!(rest.region.start, 6 * SMALL + UNIT);
        assert_eq!(rest.touched, 2 * SMALL - 2 * UNIT);
    }

    #[test]
    fn small_regions_are_at_the_end_and_large_ones_in_the_best_fit() {
        let mut block = Block::new(64 * SMALL);
        let holes = [2, 9, 2, 5].map(|times| {
            let hole = allocate(&mut block, times * SMALL);
            // Separates the holes.
            allocate(&mut block, 2 * SMALL);
            hole
        });
        holes.into_iter().for_each(|hole| block.free(hole));
        // Two holes have this size: the last one is used.
        assert_eq!(allocate(&mut block, 2 * SMALL).start, holes[2].start);
        assert_eq!(allocate(&mut block, 3 * SMALL).start, holes[3].start);
        // A small region is behind the holes, although it would fit one.
        assert_eq!(allocate(&mut block, SMALL).start, 63 * SMALL);
        // The rest of the last hole is as large as the first hole.
        let rest = holes[3].start + 3 * SMALL;
        assert_eq!(allocate(&mut block, 2 * SMALL).start, rest);
        assert_eq!(allocate(&mut block, 2 * SMALL).start, holes[0].start);
    }

    /// Allocates and frees regions in a random order, which is the same in every call. Returns the
    /// regions.
    fn step(arena: &mut Allocator) -> Vec<(usize, Region)> {
        let mut rng = Philox::new(7, [0; 3]);
        let (mut places, mut held) = (Vec::new(), Vec::<(usize, Region)>::new());
        for _ in 0..400 {
            if rng.below(5) < 3 {
                let len = u64::from(1 + rng.below(400)) * SMALL / 100;
                let len = len.next_multiple_of(UNIT);
                let allocation = arena.allocate(len).unwrap_or_else(|| {
                    arena.add_block(len.max(2 * SMALL * (1 + arena.blocks.len() as u64)));
                    arena.allocate(len).unwrap()
                });
                let place = (allocation.block, allocation.region);
                let Region { start, len } = allocation.region;
                for (block, region) in &held {
                    let apart = region.end() <= start || start + len <= region.start;
                    assert!(*block != allocation.block || apart);
                }
                places.push(place);
                held.push(place);
            } else if !held.is_empty() {
                let (block, region) = held.swap_remove(rng.below(held.len() as u32) as usize);
                arena.free(block, region);
            }
        }
        for (block, region) in held {
            arena.free(block, region);
        }
        places
    }

    #[test]
    fn every_step_gets_the_regions_of_the_first_and_none_overlap() {
        let mut arena = Allocator::default();
        arena.add_block(5 * SMALL);
        // This region is held from step to step.
        arena.allocate(3 * SMALL).unwrap();
        let first = step(&mut arena);
        let made = arena.blocks.len();
        assert!(made > 3, "the test needs several blocks");
        for _ in 0..3 {
            assert_eq!(step(&mut arena), first);
        }
        assert_eq!(arena.blocks.len(), made);
        let rest = Region {
            start: 3 * SMALL,
            len: 2 * SMALL,
        };
        let first = MemoryBlock {
            bytes: 5 * SMALL,
            free: 2 * SMALL,
            largest_free: 2 * SMALL,
        };
        assert_eq!(arena.blocks()[0], first);
        assert_eq!(arena.blocks[0].free, [rest]);
        assert!(arena.blocks[1..].iter().all(Block::is_unused));
    }
}
