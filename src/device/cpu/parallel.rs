//! Loops over chunks, on every core if the feature `threads` is enabled. Neither the chunks nor the
//! results depend on the number of threads.

#[cfg(feature = "threads")]
use super::threads::for_each;

#[cfg(not(feature = "threads"))]
fn for_each(count: usize, body: &(dyn Fn(usize) + Sync)) {
    (0..count).for_each(body);
}

/// Calls `body` with the index and the elements of each chunk of `out`, on every core. A chunk has
/// `chunk` elements; the last one may be shorter. Each chunk is passed once, in any order, so
/// results do not depend on the number of threads.
pub fn for_chunks<T: Send>(
    out: &mut [T],
    chunk: usize,
    body: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let (chunk, len) = (chunk.max(1), out.len());
    let start = Start(out.as_mut_ptr());
    for_each(len.div_ceil(chunk), &|i| {
        let first = i * chunk;
        // SAFETY: `for_each` passes each index once, so the chunks do not overlap, and `out` is
        // borrowed until the loop ends.
        let part =
            unsafe { std::slice::from_raw_parts_mut(start.at(first), chunk.min(len - first)) };
        body(i, part);
    });
}

/// The start of a slice whose parts are passed to several threads.
struct Start<T>(*mut T);

// SAFETY: each thread derives a different part of the slice from it, and the elements are `Send`.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// # Safety
    /// `index` must be inside the slice.
    unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: the caller guarantees it.
        unsafe { self.0.add(index) }
    }
}

/// The results of `body` for 0 .. count, in order.
pub(crate) fn map<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for_chunks(&mut results, 1, |i, result| result[0] = Some(body(i)));
    let results = results.into_iter();
    results
        .map(|result| result.expect("for_chunks visits every index"))
        .collect()
}

/// Elements per chunk of element-wise loops: fits the L2 cache, and hides the cost of scheduling.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Rows per chunk of a matrix with `rows` rows: enough to repay the packing of a product, but fewer
/// in a small batch, so that every thread has work.
pub(crate) fn rows_at_a_time(rows: usize) -> usize {
    (rows / 8).clamp(64, 128)
}

/// Maximum number of groups of images, each of which has partial sums of its own.
const MAX_GROUPS: usize = 8;
/// Maximum number of floats in the partial sums of all groups; exceeded only if two groups need
/// more.
const PARTIAL_SUM_FLOATS: usize = 4 << 20;

/// Images per group, for `n` images and `len` floats of partial sums per group. Large sums get
/// fewer groups, since they are allocated when a training step needs the most memory.
pub(crate) fn images_per_group(n: usize, len: usize) -> usize {
    let groups = (PARTIAL_SUM_FLOATS / len.max(1)).clamp(2, MAX_GROUPS);
    n.div_ceil(groups).max(1)
}
