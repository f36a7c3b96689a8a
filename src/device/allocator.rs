//! Where tensors lie in a device's memory: in a few large blocks, of which every tensor takes a span. Here is no
//! memory, only the places.
//!
//! A span that is given back joins the free spans beside it, so that the memory of many small tensors serves one large
//! tensor later: what a training step holds is close to what it uses at its fullest moment.

/// Spans are multiples of this many bytes: the largest alignment of an offset that an adapter may ask for.
pub(super) const UNIT: u64 = 256;
/// Spans of at most so many bytes are taken from the end of a block's last free span that holds them, larger ones from
/// the start of the smallest: gradients of weights, which are small and stay long, do not lie between activations,
/// which are large and go soon.
const SMALL: u64 = 512 << 10;

/// A part of a block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Span {
    fn end(self) -> u64 {
        self.start + self.len
    }
}

#[derive(Debug)]
struct Block {
    len: u64,
    /// By their start, no two touching.
    free: Vec<Span>,
    /// What was never in use: a part of one free span, from whose start or end the next span is taken.
    untouched: Span,
}

impl Block {
    fn new(len: u64) -> Self {
        let whole = Span { start: 0, len };
        Block {
            len,
            free: vec![whole],
            untouched: whole,
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

    /// `len` bytes: where they are few, of the last free span that holds them, else of the last of `fitting` bytes.
    /// (The first ones lie among what came before and stays.)
    fn take(&mut self, fitting: u64, len: u64) -> Span {
        let is_place = |span: &Span| match len <= SMALL {
            true => span.len >= len,
            false => span.len == fitting,
        };
        let place = self.free.iter().rposition(is_place);
        let place = place.expect("there is a free span of `fitting` bytes, which is `len` or more");
        let free = &mut self.free[place];
        let mut start = free.start;
        free.len -= len;
        match len <= SMALL {
            true => start += free.len,
            false => free.start += len,
        }
        if free.len == 0 {
            self.free.remove(place);
        }
        Span { start, len }
    }

    /// Notes that a span is in use, and returns how many bytes of it are for the first time.
    fn touch(&mut self, span: Span) -> u64 {
        let (start, end) = (self.untouched.start, self.untouched.end());
        if span.end() <= start || end <= span.start {
            return 0;
        }
        let (start, end) = match span.len <= SMALL {
            true => (start, span.start.max(start)),
            false => (span.end().min(end), end),
        };
        let before = self.untouched.len;
        self.untouched = Span {
            start,
            len: end - start,
        };
        before - self.untouched.len
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
            && span.end() == next.start
        {
            self.free[place].len += next.len;
            self.free.remove(place + 1);
        }
    }
}

/// Blocks in the order in which they were added, and what is free of them.
#[derive(Debug, Default)]
pub(super) struct Spans {
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

impl Spans {
    /// Adds a block of `len` bytes.
    pub(super) fn add(&mut self, len: u64) {
        self.blocks.push(Block::new(len));
    }

    /// `len` bytes, a multiple of [`UNIT`] that is not 0; none where no block has room.
    ///
    /// They are taken from the block in use that has the smallest free span that holds them, or the last one that has room
    /// where they are few, else from the first unused block that does. So a block that is not in use changes nothing as against one that was not added yet: the same
    /// requests in the same order get the same places in the first step and in every other, and find their bind groups
    /// in the cache.
    pub(super) fn take(&mut self, len: u64) -> Option<Taken> {
        let fitting = self.blocks.iter().enumerate();
        let fitting = fitting.filter_map(|(number, block)| {
            let fitting = block.fitting(len)?;
            let before = match (block.is_unused(), len <= SMALL) {
                (true, _) => 0,
                (false, false) => fitting,
                (false, true) => (self.blocks.len() - number) as u64,
            };
            Some((block.is_unused(), before, number, fitting))
        });
        let (_, _, number, fitting) = fitting.min()?;
        let block = &mut self.blocks[number];
        let span = block.take(fitting, len);
        Some(Taken {
            block: number,
            span,
            touched: block.touch(span),
        })
    }

    pub(super) fn give_back(&mut self, block: usize, span: Span) {
        self.blocks[block].give_back(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Philox;

    fn take(block: &mut Block, len: u64) -> Span {
        let fitting = block.fitting(len).expect("there is room");
        block.take(fitting, len)
    }

    #[test]
    fn spans_join_what_comes_back() {
        let mut block = Block::new(8 * SMALL);
        let [a, b, c] = [1, 3, 4].map(|times| take(&mut block, times * SMALL));
        // The small one at the end, the others from the start on.
        assert_eq!([a.start, b.start, c.start], [7 * SMALL, 0, 3 * SMALL]);
        assert!(block.free.is_empty() && block.fitting(UNIT).is_none());
        block.give_back(b);
        block.give_back(a);
        assert_eq!(block.free, [b, a]);
        block.give_back(c);
        let whole = Span {
            start: 0,
            len: 8 * SMALL,
        };
        assert_eq!(block.free, [whole]);
        assert!(block.is_unused());
    }

    #[test]
    fn what_many_small_tensors_used_serves_a_large_one() {
        let mut arena = Spans::default();
        arena.add(8 * SMALL);
        let taken: Vec<Taken> = (0..3).map(|_| arena.take(2 * SMALL).unwrap()).collect();
        let touched: Vec<u64> = taken.iter().map(|taken| taken.touched).collect();
        assert_eq!(touched, [2 * SMALL; 3]);
        for taken in taken {
            arena.give_back(taken.block, taken.span);
        }
        let large = arena.take(6 * SMALL).unwrap();
        assert_eq!((large.span.start, large.touched), (0, 0));
        assert_eq!(arena.take(3 * SMALL), None);
    }

    #[test]
    fn what_was_never_in_use_is_told_from_what_was() {
        let mut arena = Spans::default();
        arena.add(8 * SMALL);
        let large = arena.take(2 * SMALL).unwrap();
        let small = arena.take(UNIT).unwrap();
        assert_eq!((large.touched, small.touched), (2 * SMALL, UNIT));
        assert_eq!(small.span.start, 8 * SMALL - UNIT);
        // In the hole that the large one leaves, which fits better than what was never in use.
        let behind = arena.take(3 * SMALL).unwrap();
        arena.give_back(large.block, large.span);
        let again = arena.take(SMALL + UNIT).unwrap();
        assert_eq!((again.span.start, again.touched), (0, 0));
        arena.give_back(behind.block, behind.span);
        // From the hole's end over what was in use into what was not.
        let last = arena.take(5 * SMALL).unwrap();
        assert_eq!(last.span.start, SMALL + UNIT);
        assert_eq!(last.touched, SMALL + UNIT);
        // The rest up to the small one at the end.
        let rest = arena.take(2 * SMALL - 2 * UNIT).unwrap();
        assert_eq!(rest.span.start, 6 * SMALL + UNIT);
        assert_eq!(rest.touched, 2 * SMALL - 2 * UNIT);
    }

    #[test]
    fn small_spans_lie_behind_and_large_ones_where_they_fit() {
        let mut block = Block::new(64 * SMALL);
        let holes = [2, 9, 2, 5].map(|times| {
            let hole = take(&mut block, times * SMALL);
            // What keeps the holes apart.
            take(&mut block, 2 * SMALL);
            hole
        });
        holes.into_iter().for_each(|hole| block.give_back(hole));
        // Of the two holes that are just as large, the last.
        assert_eq!(take(&mut block, 2 * SMALL).start, holes[2].start);
        assert_eq!(take(&mut block, 3 * SMALL).start, holes[3].start);
        // A small one is behind all of them, though it would fit in one.
        assert_eq!(take(&mut block, SMALL).start, 63 * SMALL);
        // What the hole of five has left is just as large as the first one.
        let rest = holes[3].start + 3 * SMALL;
        assert_eq!(take(&mut block, 2 * SMALL).start, rest);
        assert_eq!(take(&mut block, 2 * SMALL).start, holes[0].start);
    }

    /// Where a step's tensors lie that are made and given back in an order of chance, the same for every step.
    fn step(arena: &mut Spans) -> Vec<(usize, Span)> {
        let mut rng = Philox::new(7, [0; 3]);
        let (mut places, mut held) = (Vec::new(), Vec::<(usize, Span)>::new());
        for _ in 0..400 {
            if rng.below(5) < 3 {
                let len = u64::from(1 + rng.below(400)) * SMALL / 100;
                let len = len.next_multiple_of(UNIT);
                let taken = arena.take(len).unwrap_or_else(|| {
                    arena.add(len.max(2 * SMALL * (1 + arena.blocks.len() as u64)));
                    arena.take(len).unwrap()
                });
                let place = (taken.block, taken.span);
                let Span { start, len } = taken.span;
                for (block, span) in &held {
                    let apart = span.end() <= start || start + len <= span.start;
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
        let mut arena = Spans::default();
        arena.add(5 * SMALL);
        // What is held from step to step.
        arena.take(3 * SMALL).unwrap();
        let first = step(&mut arena);
        let made = arena.blocks.len();
        assert!(made > 3, "one block tells nothing");
        for _ in 0..3 {
            assert_eq!(step(&mut arena), first);
        }
        assert_eq!(arena.blocks.len(), made);
        let rest = Span {
            start: 3 * SMALL,
            len: 2 * SMALL,
        };
        assert_eq!(arena.blocks[0].free, [rest]);
        assert!(arena.blocks[1..].iter().all(Block::is_unused));
    }
}
