//! Where tensors lie in GPU memory: in a few large blocks, each one buffer, of which every tensor takes a span.
//!
//! A span that is given back joins the free spans beside it, so that the memory of many small tensors serves one large
//! tensor later: what a training step holds is close to what it uses at its fullest moment.
//!
//! Two tensors of a kernel may so lie in one buffer. wgpu gives a buffer one use in a dispatch, and where one part of it is
//! written that use is to be written: `build.rs` makes every storage binding such a one, and a launch sees to it that
//! nothing that its kernel writes is bound twice.

/// Spans are multiples of this many bytes: the largest alignment of an offset that an adapter may ask for.
pub(super) const UNIT: u64 = 256;

/// A part of a block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: u64,
}

#[derive(Debug)]
struct Block {
    len: u64,
    /// By their start, no two touching.
    free: Vec<Span>,
    /// Bytes from the start on that were ever in use.
    touched: u64,
}

impl Block {
    fn new(len: u64) -> Self {
        Block {
            len,
            free: vec![Span { start: 0, len }],
            touched: 0,
        }
    }

    fn is_unused(&self) -> bool {
        self.free.first().is_some_and(|span| span.len == self.len)
    }

    /// The length of the smallest free span that holds `len` bytes.
    fn fitting(&self, len: u64) -> Option<u64> {
        let lengths = self.free.iter().map(|span| span.len);
        lengths.filter(|&there| there >= len).min()
    }

    /// The first `len` bytes of the first free span of `fitting` bytes.
    fn take(&mut self, fitting: u64, len: u64) -> Span {
        let place = self.free.iter().position(|span| span.len == fitting);
        let place = place.expect("the length is that of a free span");
        let span = &mut self.free[place];
        let start = span.start;
        span.start += len;
        span.len -= len;
        if span.len == 0 {
            self.free.remove(place);
        }
        Span { start, len }
    }

    fn give_back(&mut self, span: Span) {
        let place = self.free.partition_point(|free| free.start < span.start);
        self.free.insert(place, span);
        self.join_next(place);
        if place > 0 {
            self.join_next(place - 1);
        }
    }

    /// Joins a free span with the next one, where they touch.
    fn join_next(&mut self, place: usize) {
        let span = self.free[place];
        if let Some(next) = self.free.get(place + 1)
            && span.start + span.len == next.start
        {
            self.free[place].len += next.len;
            self.free.remove(place + 1);
        }
    }
}

/// Blocks in the order in which they were added, and what is free of them.
#[derive(Debug, Default)]
pub(super) struct Arena {
    blocks: Vec<Block>,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) block: usize,
    pub(super) span: Span,
    /// Bytes of the block that are in use for the first time.
    pub(super) touched: u64,
}

impl Arena {
    /// Adds a block of `len` bytes.
    pub(super) fn add(&mut self, len: u64) {
        self.blocks.push(Block::new(len));
    }

    /// `len` bytes, a multiple of [`UNIT`] that is not 0; none where no block has room.
    ///
    /// They are taken from the smallest free span of the blocks in use that holds them, else from the first unused block that
    /// does. So a block that is not in use changes nothing as against one that was not added yet: the same requests in the
    /// same order get the same places in the first step and in every other, and find their bind groups in the cache.
    pub(super) fn take(&mut self, len: u64) -> Option<Taken> {
        let fitting = self.blocks.iter().enumerate();
        let fitting = fitting.filter_map(|(number, block)| {
            let fitting = block.fitting(len)?;
            Some(match block.is_unused() {
                false => (false, fitting, number, fitting),
                true => (true, 0, number, fitting),
            })
        });
        let (_, _, number, fitting) = fitting.min()?;
        let block = &mut self.blocks[number];
        let span = block.take(fitting, len);
        let touched = (span.start + len).saturating_sub(block.touched);
        block.touched += touched;
        Some(Taken {
            block: number,
            span,
            touched,
        })
    }

    pub(super) fn give_back(&mut self, block: usize, span: Span) {
        self.blocks[block].give_back(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::philox::Philox;

    #[test]
    fn spans_join_what_comes_back() {
        let mut block = Block::new(1024);
        let [a, b, c] = [256, 512, 256].map(|len| block.take(block.fitting(len).unwrap(), len));
        assert_eq!([a.start, b.start, c.start], [0, 256, 768]);
        assert!(block.free.is_empty() && block.fitting(256).is_none());
        block.give_back(a);
        block.give_back(c);
        assert_eq!(block.free, [a, c]);
        block.give_back(b);
        let whole = Span {
            start: 0,
            len: 1024,
        };
        assert_eq!(block.free, [whole]);
        assert!(block.is_unused());
    }

    #[test]
    fn what_many_small_tensors_used_serves_a_large_one() {
        let mut arena = Arena::default();
        arena.add(64 * UNIT);
        let small: Vec<Taken> = (0..16).map(|_| arena.take(UNIT).unwrap()).collect();
        assert_eq!(
            small.iter().map(|taken| taken.touched).sum::<u64>(),
            16 * UNIT
        );
        for taken in small {
            arena.give_back(taken.block, taken.span);
        }
        let large = arena.take(16 * UNIT).unwrap();
        assert_eq!((large.span.start, large.touched), (0, 0));
        assert_eq!(arena.take(49 * UNIT), None);
    }

    /// Where a step's tensors lie that are made and given back in an order of chance, the same for every step.
    fn step(arena: &mut Arena) -> Vec<(usize, Span)> {
        let mut rng = Philox::new(7, [0; 3]);
        let (mut places, mut held) = (Vec::new(), Vec::<(usize, Span)>::new());
        for _ in 0..400 {
            if rng.below(5) < 3 {
                let len = u64::from(1 + rng.below(40)) * UNIT;
                let taken = arena.take(len).unwrap_or_else(|| {
                    arena.add(len.max(16 * UNIT * (1 + arena.blocks.len() as u64)));
                    arena.take(len).unwrap()
                });
                let place = (taken.block, taken.span);
                let Span { start, len } = taken.span;
                for (block, span) in &held {
                    let apart = span.start + span.len <= start || start + len <= span.start;
                    assert!(*block != taken.block || apart);
                }
                places.push(place);
                held.push(place);
            } else if !held.is_empty() {
                let (block, span) = held.swap_remove(rng.below(held.len() as u32) as usize);
                arena.give_back(block, span);
            }
        }
        for (block, span) in held {
            arena.give_back(block, span);
        }
        places
    }

    #[test]
    fn every_step_gets_the_places_of_the_first_and_no_two_tensors_overlap() {
        let mut arena = Arena::default();
        arena.add(50 * UNIT);
        // What is held from step to step.
        arena.take(30 * UNIT).unwrap();
        let first = step(&mut arena);
        let made = arena.blocks.len();
        assert!(made > 3, "one block tells nothing");
        for _ in 0..3 {
            assert_eq!(step(&mut arena), first);
        }
        assert_eq!(arena.blocks.len(), made);
        let rest = Span {
            start: 30 * UNIT,
            len: 20 * UNIT,
        };
        assert_eq!(arena.blocks[0].free, [rest]);
        assert!(arena.blocks[1..].iter().all(Block::is_unused));
    }
}
