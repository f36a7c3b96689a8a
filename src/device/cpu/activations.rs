//! Activations: stored as f32 or f16, and computed as f32. A loop reads and writes one part at a time.
//! A part of an f16 tensor is converted in memory that its thread keeps, and rounded to the nearest
//! number as it is stored.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::RwLockReadGuard;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::arena::Buffer;
use super::parallel;
use super::storage::{CpuData, read, write};
use super::{Cpu, data};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// f16 numbers in an arena's floats, two in each.
pub(crate) struct HalfBuffer {
    floats: Buffer,
    len: usize,
}

impl HalfBuffer {
    /// `len` numbers in `floats`, which has [`HalfBuffer::floats`] of them.
    pub(crate) fn new(floats: Buffer, len: usize) -> Self {
        debug_assert_eq!(floats.len(), Self::floats(len));
        HalfBuffer { floats, len }
    }

    /// The floats that `len` numbers take.
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

/// Memory that a thread keeps between parts, one piece for each part that it holds at once.
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
    /// What `body` makes of the elements of `range`, as f32.
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

/// What `body` makes of the elements of `range` of two tensors.
#[inline(always)]
pub(crate) fn with_both<R>(
    [a, b]: [Activations<'_>; 2],
    range: Range<usize>,
    body: impl FnOnce(&[f32], &[f32]) -> R,
) -> R {
    a.with(range.clone(), |a| b.with(range, |b| body(a, b)))
}

/// A tensor of activations that is being read.
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

/// Activations that are to be filled; their content is not defined before.
pub(crate) enum NewActivations {
    F32(Buffer),
    F16(HalfBuffer),
}

impl NewActivations {
    /// Calls `body` with each chunk of `chunk` elements (the last may be shorter), as f32 and with undefined content,
    /// and its index; it is stored as `body` leaves it.
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
    /// Reads a tensor of activations.
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

    /// Changes a tensor of activations in place: calls `body` with each chunk, as f32, and its
    /// index.
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

    /// Reads the f32 weight `w`, rounded to `dtype`, the type of the activations that it is
    /// multiplied with.
    pub(crate) fn read_weight<'a>(&self, w: &'a Tensor, dtype: DType) -> Result<Weight<'a>> {
        let CpuData::F32(lock) = data(w)? else {
            return Err(Error::shape("", "a weight is not f32"));
        };
        let stored = read(lock);
        if dtype != DType::F16 {
            return Ok(Weight::Stored(stored));
        }
        const PART: usize = 1024;
        let mut values = self.take(stored.len());
        parallel::for_chunks(&mut values, parallel::CHUNK, |i, values| {
            let mut half = [f16::ZERO; PART];
            let stored = &stored[i * parallel::CHUNK..][..values.len()];
            for (values, stored) in values.chunks_mut(PART).zip(stored.chunks(PART)) {
                let half = &mut half[..stored.len()];
                half.convert_from_f32_slice(stored);
                half.convert_to_f32_slice(values);
            }
        });
        Ok(Weight::Rounded(values))
    }

    /// Room for `len` activations of type `dtype`.
    pub(crate) fn take_activations(&self, len: usize, dtype: DType) -> NewActivations {
        match dtype {
            DType::F16 => {
                NewActivations::F16(HalfBuffer::new(self.take(HalfBuffer::floats(len)), len))
            }
            _ => NewActivations::F32(self.take(len)),
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

/// A weight as it is multiplied with activations.
pub(crate) enum Weight<'a> {
    Stored(RwLockReadGuard<'a, Buffer>),
    /// To f16 and back.
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
