//! Work on many files by all processors.

use std::sync::Mutex;
use std::thread;

/// Applies `work` to each item on all processors, and returns the results in the order of the
/// items.
pub fn map<T: Send, R: Send>(
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let threads = if cfg!(feature = "threads") {
        thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    if threads == 1 {
        return items.map(work).collect();
    }
    let items = Mutex::new(items.enumerate());
    let next = || items.lock().expect("an iterator does not panic").next();
    let run = || {
        let mut results = Vec::new();
        while let Some((place, item)) = next() {
            results.push((place, work(item)));
        }
        results
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        // If a worker panics, this thread goes down with it.
        let ended = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"));
        ended.collect()
    });
    results.sort_unstable_by_key(|&(place, _)| place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_the_order_of_the_items() {
        let mut slots = vec![0u8; 1000];
        let squares = super::map(slots.chunks_mut(3).enumerate(), |(i, slot)| {
            slot.fill(i as u8);
            i * i
        });
        assert_eq!(squares.len(), 334);
        assert!(
            squares
                .iter()
                .enumerate()
                .all(|(i, &square)| square == i * i)
        );
        assert!(slots.iter().enumerate().all(|(i, &v)| v == (i / 3) as u8));
    }
}
