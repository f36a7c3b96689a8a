//! Loops over fixed chunks, on every core where the feature `threads` is on. The chunks never depend on the number of
//! threads, so neither do the results.

#[cfg(feature = "threads")]
use super::threads::for_each;

#[cfg(not(feature = "threads"))]
fn for_each(count: usize, body: &(dyn Fn(usize) + Sync)) {
    (0..count).for_each(body);
}

/// Calls `body` with each chunk of `out` (`chunk` elements, the last may be shorter) and its index.
pub(crate) fn for_chunks<T: Send>(
    out: &mut [T],
    chunk: usize,
    body: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let (chunk, len) = (chunk.max(1), out.len());
    let start = Start(out.as_mut_ptr());
    for_each(len.div_ceil(chunk), &|i| {
        let first = i * chunk;
        // SAFETY: every index is handed out once, so the chunks are parts of `out` that do not overlap, and `out` is
        // borrowed until the loop is over.
        let part =
            unsafe { std::slice::from_raw_parts_mut(start.at(first), chunk.min(len - first)) };
        body(i, part);
    });
}

/// Where a slice begins whose parts go to several threads.
struct Start<T>(*mut T);

// SAFETY: each thread makes another part of the slice from it, whose elements may be sent to it.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// # Safety
    /// `index` must lie in the slice.
    unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

/// The results of `body` for 0 .. count, in order.
pub(crate) fn map<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for_chunks(&mut results, 1, |i, result| result[0] = Some(body(i)));
    let results = results.into_iter();
    results
        .map(|result| result.expect("every index has its turn"))
        .collect()
}

/// Elements a thread takes at a time in element-wise loops: small enough for the second-level cache, large enough to
/// hide the hand-over.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Rows of a batch's matrix that a thread takes at a time: enough for a product to be worth its packing; fewer where the
/// batch is small, so that more threads have some.
pub(crate) fn rows_at_a_time(rows: usize) -> usize {
    (rows / 8).clamp(64, 128)
}

/// Groups of images whose partial sums are added up apart, at most.
const GROUPS: usize = 8;
/// Floats of all partial sums together, where two groups do not need more.
const PARTIAL_SUMS: usize = 4 << 20;

/// Images of a group where each group of `n` images makes partial sums of `len` floats. The larger these are, the fewer
/// groups: they take memory at the fullest moment of a step.
pub(crate) fn images_per_group(n: usize, len: usize) -> usize {
    let groups = (PARTIAL_SUMS / len.max(1)).clamp(2, GROUPS);
    n.div_ceil(groups).max(1)
}
