//! Activations: stored as f32 or f16, computed as f32. Each thread converts one part of an f16
//! tensor at a time, in scratch memory of its own, and rounds to nearest when it stores the part.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::RwLockReadGuard;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::arena::Buffer;
use super::parallel;
use super::storage::{CpuData, read, write};
use super::{Cpu, data, wrong_type};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// f16 numbers in the memory of floats, two per float.
pub(crate) struct HalfBuffer {
    floats: Buffer,
    len: usize,
}

impl HalfBuffer {
    /// `len` numbers in a buffer of [`HalfBuffer::floats`]`(len)` floats.
    pub(crate) fn new(floats: Buffer, len: usize) -> Self {
        debug_assert_eq!(floats.len(), Self::floats(len));
        HalfBuffer { floats, len }
    }

    /// The number of floats that hold `len` numbers.
    pub(crate) fn floats(len: usize) -> usize {
        len.div_ceil(2)
    }
}

impl Deref for HalfBuffer {
    type Target = [f16];

    fn deref(&self) -> &[f16] {
        &bytemuck::cast_slice(&self.floats)[..self.len]
    }
}

impl DerefMut for HalfBuffer {
    fn deref_mut(&mut self) -> &mut [f16] {
        &mut bytemuck::cast_slice_mut(&mut self.floats)[..self.len]
    }
}

/// Calls `body` with `len` floats of undefined content. The thread keeps the memory for later
/// calls; nested calls get different pieces.
fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut piece = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if piece.len() < len {
        piece = vec![0.0; len];
    }
    let result = body(&mut piece[..len]);
    FREE.with_borrow_mut(|free| free.push(piece));
    result
}

/// The elements of a tensor of activations.
#[derive(Clone, Copy)]
pub(crate) enum Activations<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Activations<'_> {
    /// Calls `body` with the elements of `range`, as f32.
    #[inline(always)]
    pub(crate) fn with<R>(self, range: Range<usize>, body: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Activations::F32(values) => body(&values[range]),
            Activations::F16(values) => with_scratch(range.len(), |part| {
                values[range].convert_to_f32_slice(part);
                body(part)
            }),
        }
    }

    pub(crate) fn dtype(self) -> DType {
        match self {
            Activations::F32(_) => DType::F32,
            Activations::F16(_) => DType::F16,
        }
    }
}

/// Calls `body` with the elements of `range` of two tensors, as f32.
#[inline(always)]
pub(crate) fn with_both<R>(
    [a, b]: [Activations<'_>; 2],
    range: Range<usize>,
    body: impl FnOnce(&[f32], &[f32]) -> R,
) -> R {
    a.with(range.clone(), |a| b.with(range, |b| body(a, b)))
}

/// Activations that are locked for reading.
pub(crate) enum ReadActivations<'a> {
    F32(RwLockReadGuard<'a, Buffer>),
    F16(RwLockReadGuard<'a, HalfBuffer>),
}

impl ReadActivations<'_> {
    pub(crate) fn values(&self) -> Activations<'_> {
        match self {
            ReadActivations::F32(values) => Activations::F32(values),
            ReadActivations::F16(values) => Activations::F16(values),
        }
    }
}

/// New activations. Their content is undefined until it is filled.
pub(crate) enum NewActivations {
    F32(Buffer),
    F16(HalfBuffer),
}

impl NewActivations {
    /// Calls `body` with the index of each chunk and an f32 slice of undefined content, and stores
    /// what `body` writes to it. A chunk has `chunk` elements; the last one may be shorter.
    pub(crate) fn for_chunks(
        &mut self,
        chunk: usize,
        body: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) {
        match self {
            NewActivations::F32(values) => parallel::for_chunks(values, chunk, body),
            NewActivations::F16(values) => parallel::for_chunks(values, chunk, |i, stored| {
                with_scratch(stored.len(), |part| {
                    body(i, part);
                    stored.convert_from_f32_slice(part);
                });
            }),
        }
    }
}

impl Cpu {
    /// Locks a tensor of activations for reading.
    pub(crate) fn read_activations<'a>(&self, x: &'a Tensor) -> Result<ReadActivations<'a>> {
        match data(x)? {
            CpuData::F32(lock) => Ok(ReadActivations::F32(read(lock))),
            CpuData::F16(lock) => Ok(ReadActivations::F16(read(lock))),
            _ => {
                let message = format!("a tensor holds {:?}; expected F32 or F16", x.dtype());
                Err(Error::shape("", message))
            }
        }
    }

    /// Changes activations in place: `body` gets the index and the f32 elements of each chunk.
    pub(crate) fn change_activations(
        &self,
        x: &Tensor,
        chunk: usize,
        body: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) -> Result<()> {
        match data(x)? {
            CpuData::F16(lock) => parallel::for_chunks(&mut write(lock), chunk, |i, stored| {
                with_scratch(stored.len(), |part| {
                    stored.convert_to_f32_slice(part);
                    body(i, part);
                    stored.convert_from_f32_slice(part);
                });
            }),
            _ => parallel::for_chunks(&mut self.write(x)?, chunk, body),
        }
        Ok(())
    }

    /// Reads the f32 weight `w`, rounded to `dtype`, the type of the activations.
    pub(crate) fn read_weight<'a>(&self, w: &'a Tensor, dtype: DType) -> Result<Weight<'a>> {
        let CpuData::F32(lock) = data(w)? else {
            return Err(wrong_type(w, DType::F32));
        };
        let stored = read(lock);
        if dtype != DType::F16 {
            return Ok(Weight::Stored(stored));
        }
        const PART_LEN: usize = 1024;
        let mut values = self.allocate(stored.len());
        parallel::for_chunks(&mut values, parallel::CHUNK, |i, values| {
            let mut half = [f16::ZERO; PART_LEN];
            let stored = &stored[i * parallel::CHUNK..][..values.len()];
            for (values, stored) in values.chunks_mut(PART_LEN).zip(stored.chunks(PART_LEN)) {
                let half = &mut half[..stored.len()];
                half.convert_from_f32_slice(stored);
                half.convert_to_f32_slice(values);
            }
        });
        Ok(Weight::Rounded(values))
    }

    /// Allocates `len` activations of type `dtype`.
    pub(crate) fn allocate_activations(&self, len: usize, dtype: DType) -> NewActivations {
        match dtype {
            DType::F16 => {
                let floats = self.allocate(HalfBuffer::floats(len));
                NewActivations::F16(HalfBuffer::new(floats, len))
            }
            _ => NewActivations::F32(self.allocate(len)),
        }
    }

    /// The filled activations as a tensor.
    pub(crate) fn activations(&self, shape: &[usize], values: NewActivations) -> Tensor {
        match values {
            NewActivations::F32(values) => self.floats(shape, values),
            NewActivations::F16(values) => {
                debug_assert_eq!(shape.iter().product::<usize>(), values.len());
                self.tensor(shape, DType::F16, CpuData::F16(values.into()))
            }
        }
    }
}

/// A weight that multiplies activations.
pub(crate) enum Weight<'a> {
    Stored(RwLockReadGuard<'a, Buffer>),
    /// Rounded to f16, as f32.
    Rounded(Buffer),
}

impl Deref for Weight<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Weight::Stored(values) => values,
            Weight::Rounded(values) => values,
        }
    }
}
