//! Counts of the memory of devices.

use std::sync::atomic::{AtomicU64, Ordering};

/// Current and peak bytes held for tensors. Freed memory that is kept for reuse counts as held; the
/// part of a block that was never used does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub current: u64,
    pub peak: u64,
}

/// A block of memory, from which tensors are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBlock {
    pub bytes: u64,
    /// Bytes that no tensor occupies, and of the largest region among them.
    pub free: u64,
    pub largest_free: u64,
}

/// A number for new storage, unique in the process.
pub(crate) fn next_storage_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Counts bytes from several threads.
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
