//! Tensors' memory on the CPU.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::activations::HalfBuffer;
use super::arena::{Arena, Buffer};
use crate::device::memory::next_storage_id;

/// The elements of one tensor. The locks let kernels change a tensor in place behind a shared reference; they are never
/// contended, since a step's kernels follow one another.
pub(crate) struct CpuStorage {
    id: u64,
    pub(super) data: CpuData,
    arena: Arc<Arena>,
}

pub(super) enum CpuData {
    F32(RwLock<Buffer>),
    F16(RwLock<HalfBuffer>),
    U32(RwLock<Vec<u32>>),
    U8(RwLock<Vec<u8>>),
}

impl CpuStorage {
    pub(super) fn new(data: CpuData, arena: Arc<Arena>) -> Self {
        if let Some(bytes) = data.bytes_outside_the_arena() {
            arena.memory.add(bytes);
        }
        CpuStorage {
            id: next_storage_id(),
            data,
            arena,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl CpuData {
    /// The bytes of integer tensors, which are few; floats are counted by the arena.
    fn bytes_outside_the_arena(&self) -> Option<u64> {
        match self {
            CpuData::F32(_) | CpuData::F16(_) => None,
            CpuData::U32(data) => Some(4 * read(data).len() as u64),
            CpuData::U8(data) => Some(read(data).len() as u64),
        }
    }
}

impl Drop for CpuStorage {
    fn drop(&mut self) {
        if let Some(bytes) = self.data.bytes_outside_the_arena() {
            self.arena.memory.remove(bytes);
        }
    }
}

/// Read access. A panic in another kernel does not make the numbers unreadable.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Write access.
pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
