//! The memory of tensors on the CPU.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::Cpu;
use super::activations::HalfBuffer;
use super::arena::Buffer;
use crate::device::memory::next_storage_id;

/// The elements of one tensor. The locks allow operations to change a tensor through a shared
/// reference. They are contended only if several threads use one tensor.
pub(crate) struct CpuStorage {
    id: u64,
    data: CpuData,
    cpu: Cpu,
}

pub(crate) enum CpuData {
    F32(RwLock<Buffer>),
    F16(RwLock<HalfBuffer>),
    U32(RwLock<Vec<u32>>),
    U8(RwLock<Vec<u8>>),
}

impl CpuStorage {
    pub(super) fn new(data: CpuData, cpu: &Cpu) -> Self {
        if let Some(bytes) = data.bytes_outside_the_arena() {
            cpu.arena().memory.add(bytes);
        }
        CpuStorage {
            id: next_storage_id(),
            data,
            cpu: cpu.clone(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(super) fn data(&self) -> &CpuData {
        &self.data
    }

    /// A copy of the elements, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.data {
            CpuData::F32(values) => bytemuck::cast_slice(&read(values)).to_vec(),
            CpuData::F16(values) => bytemuck::cast_slice(&read(values)).to_vec(),
            CpuData::U32(values) => bytemuck::cast_slice(&read(values)).to_vec(),
            CpuData::U8(values) => read(values).to_vec(),
        }
    }

    /// Replaces all elements by those of `bytes`.
    pub(crate) fn overwrite(&self, bytes: &[u8]) {
        match &self.data {
            CpuData::F32(values) => {
                bytemuck::cast_slice_mut(&mut write(values)).copy_from_slice(bytes);
            }
            CpuData::F16(values) => {
                bytemuck::cast_slice_mut(&mut write(values)).copy_from_slice(bytes);
            }
            CpuData::U32(values) => {
                bytemuck::cast_slice_mut(&mut write(values)).copy_from_slice(bytes);
            }
            CpuData::U8(values) => write(values).copy_from_slice(bytes),
        }
    }
}

impl CpuData {
    /// The bytes of an integer tensor. The arena counts floats.
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
            self.cpu.arena().memory.remove(bytes);
        }
    }
}

/// Locks for reading, also after a panic in another operation.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing, also after a panic in another operation. Retries instead of waiting: while a
/// writer waits, no new reader gets the lock, so an operation with one tensor as two arguments
/// would wait for the writer, and the writer for the operation.
pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    loop {
        match lock.try_write() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}

pub(super) fn shared(data: CpuData, cpu: &Cpu) -> Arc<CpuStorage> {
    Arc::new(CpuStorage::new(data, cpu))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_writer_that_waits_does_not_stop_a_second_read() {
        let lock = RwLock::new(0);
        std::thread::scope(|scope| {
            let first = read(&lock);
            scope.spawn(|| *write(&lock) = 1);
            std::thread::sleep(Duration::from_millis(200));
            assert!(
                lock.try_read().is_ok(),
                "the second read waits for the writer"
            );
            drop(first);
        });
        assert_eq!(*read(&lock), 1);
    }
}
