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

/// Groups of images whose partial sums are added up apart, at most.
const GROUPS: usize = 8;
/// Floats of all partial sums together, where two groups do not need more.
const PARTIAL_SUMS: usize = 4 << 20;

/// Images of a group where each group of `n` images makes partial sums of `len` floats. The larger these are, the fewer
/// groups: they take memory at the fullest moment of a step.
pub(super) fn images_per_group(n: usize, len: usize) -> usize {
    let groups = (PARTIAL_SUMS / len.max(1)).clamp(2, GROUPS);
    n.div_ceil(groups).max(1)
}
