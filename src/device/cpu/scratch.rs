//! Memory that a thread keeps between the blocks of convolutions: one piece, as large as the largest block needed.

use std::cell::RefCell;

/// Parts of `lens` floats, whose content is not defined. Not to be asked for again inside `body`.
pub(super) fn with_scratch<const N: usize, R>(
    lens: [usize; N],
    body: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|buffer| {
        let len = lens.iter().sum();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        let mut rest = &mut buffer[..len];
        body(lens.map(|len| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            part
        }))
    })
}
