//! Memory that a thread keeps between the blocks of convolutions: one piece, as large as the largest block needed.

use std::cell::RefCell;

use super::arena::LINE;

/// Floats of a line of the cache.
const FLOATS: usize = LINE / size_of::<f32>();

/// Parts of `lens` floats, each from the beginning of a line on, whose content is not defined. Not to be asked for
/// again inside `body`.
pub(crate) fn with_scratch<const N: usize, R>(
    lens: [usize; N],
    body: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|buffer| {
        let whole_lines = |len: usize| len.next_multiple_of(FLOATS);
        let len = FLOATS + lens.iter().copied().map(whole_lines).sum::<usize>();
        if buffer.len() < len {
            // Not both at once; and pages that no part touches are not taken.
            *buffer = Vec::new();
            *buffer = vec![0.0; len];
        }
        let before = buffer.as_ptr().align_offset(LINE);
        assert!(before <= FLOATS, "a pointer to floats can be aligned");
        let mut rest = &mut buffer[before..];
        body(lens.map(|len| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(whole_lines(len));
            rest = others;
            &mut part[..len]
        }))
    })
}
