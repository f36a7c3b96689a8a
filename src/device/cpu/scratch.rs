//! Scratch memory that a thread keeps between the blocks of convolutions.

use std::cell::RefCell;

use super::arena::LINE_BYTES;

/// Floats per cache line.
const LINE_FLOATS: usize = LINE_BYTES / size_of::<f32>();

/// Calls `body` with slices of `lens` floats, each aligned to a cache line and with undefined
/// content. `body` must not call this function.
pub(crate) fn with_scratch<const N: usize, R>(
    lens: [usize; N],
    body: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|buffer| {
        let whole_lines = |len: usize| len.next_multiple_of(LINE_FLOATS);
        let len = LINE_FLOATS + lens.iter().copied().map(whole_lines).sum::<usize>();
        if buffer.len() < len {
            // Frees the old memory first. Pages of zeros are not provided until they are touched.
            *buffer = Vec::new();
            *buffer = vec![0.0; len];
        }
        let before = buffer.as_ptr().align_offset(LINE_BYTES);
        assert!(before <= LINE_FLOATS, "a pointer to floats can be aligned");
        let mut rest = &mut buffer[before..];
        body(lens.map(|len| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(whole_lines(len));
            rest = others;
            &mut part[..len]
        }))
    })
}
