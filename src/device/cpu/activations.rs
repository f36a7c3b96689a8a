//! Activations: stored as f32 or f16, computed with as f32. A kernel reads and writes a part at a time; where f16 is
//! stored, the part lies in memory that its thread keeps, and is rounded to the nearest as it is stored.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::RwLockReadGuard;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::arena::Buffer;
use super::parallel;
use super::storage::{CpuData, read, write};
use super::{CpuDevice, data, read_f32, write_f32};
use crate::device::shapes;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// f16 numbers in an arena's floats, two in each.
pub(super) struct HalfBuffer {
    floats: Buffer,
    len: usize,
}

impl HalfBuffer {
    /// `len` numbers in `floats`, which has [`HalfBuffer::floats`] of them.
    pub(super) fn new(floats: Buffer, len: usize) -> Self {
        debug_assert_eq!(floats.len(), Self::floats(len));
        HalfBuffer { floats, len }
    }

    /// The floats that `len` numbers take.
    pub(super) fn floats(len: usize) -> usize {
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
pub(super) enum Activations<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Activations<'_> {
    /// What `body` makes of the elements of `range`, as f32.
    #[inline(always)]
    pub(super) fn with<R>(self, range: Range<usize>, body: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Activations::F32(values) => body(&values[range]),
            Activations::F16(values) => with_scratch(range.len(), |part| {
                values[range].convert_to_f32_slice(part);
                body(part)
            }),
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Activations::F32(_) => DType::F32,
            Activations::F16(_) => DType::F16,
        }
    }
}

/// What `body` makes of the elements of `range` of two tensors.
#[inline(always)]
pub(super) fn with_both<R>(
    [a, b]: [Activations<'_>; 2],
    range: Range<usize>,
    body: impl FnOnce(&[f32], &[f32]) -> R,
) -> R {
    a.with(range.clone(), |a| b.with(range, |b| body(a, b)))
}

/// A tensor of activations that is being read.
pub(super) enum ReadActivations<'a> {
    F32(RwLockReadGuard<'a, Buffer>),
    F16(RwLockReadGuard<'a, HalfBuffer>),
}

impl ReadActivations<'_> {
    pub(super) fn values(&self) -> Activations<'_> {
        match self {
            ReadActivations::F32(values) => Activations::F32(values),
            ReadActivations::F16(values) => Activations::F16(values),
        }
    }
}

/// Reads a tensor of activations.
pub(super) fn read_activations<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<ReadActivations<'a>> {
    match data(operation, name, x)? {
        CpuData::F32(lock) => Ok(ReadActivations::F32(read(lock))),
        CpuData::F16(lock) => Ok(ReadActivations::F16(read(lock))),
        _ => Err(Error::shape(
            operation,
            format!("{name} holds {:?}; expected F32 or F16", x.dtype()),
        )),
    }
}

/// Activations that are to be filled; their content is not defined before.
pub(super) enum NewActivations {
    F32(Buffer),
    F16(HalfBuffer),
}

impl NewActivations {
    /// Calls `body` with each chunk of `chunk` elements (the last may be shorter), as f32 and with undefined content,
    /// and its index; it is stored as `body` leaves it.
    pub(super) fn for_chunks(
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

/// Changes a tensor of activations in place: calls `body` with each chunk, as f32, and its index.
pub(super) fn change_activations(
    operation: &'static str,
    name: &str,
    x: &Tensor,
    chunk: usize,
    body: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Result<()> {
    match data(operation, name, x)? {
        CpuData::F16(lock) => parallel::for_chunks(&mut write(lock), chunk, |i, stored| {
            with_scratch(stored.len(), |part| {
                stored.convert_to_f32_slice(part);
                body(i, part);
                stored.convert_from_f32_slice(part);
            });
        }),
        _ => parallel::for_chunks(&mut write_f32(operation, name, x)?, chunk, body),
    }
    Ok(())
}

impl CpuDevice {
    /// Room for `len` activations of type `dtype`.
    pub(super) fn take_activations(&self, len: usize, dtype: DType) -> NewActivations {
        match dtype {
            DType::F16 => {
                NewActivations::F16(HalfBuffer::new(self.take(HalfBuffer::floats(len)), len))
            }
            _ => NewActivations::F32(self.take(len)),
        }
    }

    /// The filled activations as a tensor.
    pub(super) fn activations(&self, shape: &[usize], values: NewActivations) -> Tensor {
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
pub(super) enum Weight<'a> {
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

/// Reads the f32 weight `w` for activations of type `dtype`: rounded to it.
pub(super) fn read_weight<'a>(
    device: &CpuDevice,
    operation: &'static str,
    w: &'a Tensor,
    dtype: DType,
) -> Result<Weight<'a>> {
    let stored = read_f32(operation, "w", w)?;
    if dtype != DType::F16 {
        return Ok(Weight::Stored(stored));
    }
    const PART: usize = 1024;
    let mut values = device.take(stored.len());
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

pub(super) fn cast(device: &CpuDevice, x: &Tensor, dtype: DType) -> Result<Tensor> {
    shapes::activations("cast", "x", x)?;
    shapes::activation_type("cast", "dtype", dtype)?;
    let stored = read_activations("cast", "x", x)?;
    let mut y = device.take_activations(x.len(), dtype);
    y.for_chunks(parallel::CHUNK, |i, part| {
        let start = i * parallel::CHUNK;
        let range = start..start + part.len();
        stored.values().with(range, |x| part.copy_from_slice(x));
    });
    Ok(device.activations(x.shape(), y))
}
