//! Loops over fixed chunks, on every core where the feature `threads` is on. The chunks never depend on the number of
//! threads, so neither do the results.

#[cfg(feature = "threads")]
use rayon::prelude::*;

/// Calls `body` with each chunk of `out` (`chunk` elements, the last may be shorter) and its index.
pub(super) fn for_chunks<T: Send>(
    out: &mut [T],
    chunk: usize,
    body: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    #[cfg(feature = "threads")]
    out.par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(i, part)| body(i, part));
    #[cfg(not(feature = "threads"))]
    out.chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(i, part)| body(i, part));
}

/// The results of `body` for 0 .. count, in order.
pub(super) fn map<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    #[cfg(feature = "threads")]
    return (0..count).into_par_iter().map(body).collect();
    #[cfg(not(feature = "threads"))]
    return (0..count).map(body).collect();
}

/// Elements a thread takes at a time in element-wise loops: small enough for the second-level cache, large enough to
/// hide the hand-over.
pub(super) const CHUNK: usize = 16 * 1024;
