//! What the devices' memory is counted by: bytes, storage numbers, and the size classes of the GPU's pool.

use std::sync::atomic::{AtomicU64, Ordering};

use super::kernels::MemoryUse;

/// The size that a request for `len` elements is rounded up to: eight classes between powers of two, so that at most an
/// eighth is wasted and buffers of nearly equal tensors are shared.
pub(crate) fn size_class(len: usize) -> usize {
    if len <= 64 {
        return if len == 0 { 0 } else { 64 };
    }
    let step = (len.next_power_of_two() / 16).max(1);
    len.div_ceil(step) * step
}

/// A number for a new tensor's storage, unique in the process.
pub(crate) fn next_storage_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Bytes held, now and at peak.
#[derive(Default)]
pub(crate) struct MemoryCounter {
    current: AtomicU64,
    peak: AtomicU64,
}

impl MemoryCounter {
    pub(crate) fn add(&self, bytes: u64) {
        let now = self.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        self.current.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> MemoryUse {
        MemoryUse {
            current: self.current.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn a_size_class_holds_the_request_and_wastes_little() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 67_108_864, 67_108_865]) {
            let class = size_class(len);
            assert!(class >= len, "{len} -> {class}");
            assert!(
                len < 64 || class as f64 <= len as f64 * 1.125 + 1.0,
                "{len} -> {class}"
            );
            assert_eq!(size_class(class), class, "a class must be its own class");
        }
    }
}
