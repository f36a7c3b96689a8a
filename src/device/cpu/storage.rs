//! Tensors' memory on the CPU, and the pool that large float buffers go back to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::device::kernels::MemoryUse;
use crate::device::memory::{MemoryCounter, next_storage_id, size_class};

/// The elements of one tensor. The locks let kernels change a tensor in place behind a shared reference; they are never
/// contended, since a step's kernels follow one another.
pub(crate) struct CpuStorage {
    id: u64,
    pub(super) data: CpuData,
    pool: Arc<CpuPool>,
}

pub(super) enum CpuData {
    F32(RwLock<Vec<f32>>),
    U32(RwLock<Vec<u32>>),
    U8(RwLock<Vec<u8>>),
}

impl CpuStorage {
    pub(super) fn new(data: CpuData, pool: Arc<CpuPool>) -> Self {
        if let Some(bytes) = data.bytes_outside_the_pool() {
            pool.memory.add(bytes);
        }
        CpuStorage {
            id: next_storage_id(),
            data,
            pool,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl CpuData {
    /// The bytes of integer tensors, which are few and not pooled; floats are counted by the pool.
    fn bytes_outside_the_pool(&self) -> Option<u64> {
        match self {
            CpuData::F32(_) => None,
            CpuData::U32(data) => Some(4 * read(data).len() as u64),
            CpuData::U8(data) => Some(read(data).len() as u64),
        }
    }
}

impl Drop for CpuStorage {
    fn drop(&mut self) {
        if let Some(bytes) = self.data.bytes_outside_the_pool() {
            self.pool.memory.remove(bytes);
        }
        if let CpuData::F32(data) = &mut self.data {
            let data = data.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.pool.give_back(std::mem::take(data));
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

/// Free float buffers by size class: a training step finds the memory of the step before, already mapped.
#[derive(Default)]
pub(super) struct CpuPool {
    free: Mutex<HashMap<usize, Vec<Vec<f32>>>>,
    pub(super) memory: MemoryCounter,
}

impl CpuPool {
    /// A buffer of `len` floats whose content is whatever it last held.
    pub(super) fn take(&self, len: usize) -> Vec<f32> {
        let class = size_class(len);
        let found = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&class)
            .and_then(Vec::pop);
        let mut buffer = found.unwrap_or_else(|| {
            self.memory.add(4 * class as u64);
            Vec::with_capacity(class)
        });
        buffer.resize(len, 0.0);
        buffer
    }

    /// Keeps `buffer` for the next tensor of its class.
    pub(super) fn give_back(&self, buffer: Vec<f32>) {
        let class = size_class(buffer.len());
        if buffer.capacity() < class || class == 0 {
            return;
        }
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(class)
            .or_default()
            .push(buffer);
    }

    pub(super) fn memory(&self) -> MemoryUse {
        self.memory.read()
    }
}
