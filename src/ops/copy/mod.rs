//! Copies of whole tensors and of their rows.
//!
//! | operation | result | backward |
//! | --- | --- | --- |
//! | [`CopyTensor`] | a new tensor with the elements of `x` | |
//! | [`Concat`] | the rows of `a` above the rows of `b` | each operand gets its rows of `dy` |
//! | [`Slice`] | rows `start..start + count` of `x` | `dy` in these rows, 0 in the others |
//!
//! A *row* is one index of the first dimension.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// A new tensor with the elements of `x`, of any type.
pub struct CopyTensor<'a> {
    pub x: &'a Tensor,
}

impl Op for CopyTensor<'_> {
    const NAME: &'static str = "copy";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.tensor("x", self.x, self.x.shape(), self.x.dtype())
    }
}

/// The rows of `a` above the rows of `b`. All dimensions but the first are equal.
pub struct Concat<'a> {
    pub a: &'a Tensor,
    pub b: &'a Tensor,
}

impl Op for Concat<'_> {
    const NAME: &'static str = "concat";
    /// The rows of the result.
    type Sizes = usize;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        check.f32("a", self.a)?;
        check.f32("b", self.b)?;
        match (self.a.shape(), self.b.shape()) {
            ([a, rest_a @ ..], [b, rest_b @ ..]) if rest_a == rest_b => Ok(a + b),
            (a, b) => Err(check.error(format!(
                "a has shape {a:?} and b has shape {b:?}; they may differ in the first dimension only"
            ))),
        }
    }
}

/// Rows `start..start + count` of `x`.
pub struct Slice<'a> {
    pub x: &'a Tensor,
    pub start: usize,
    pub count: usize,
}

impl Op for Slice<'_> {
    const NAME: &'static str = "slice";
    /// The elements of one row.
    type Sizes = usize;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        let Slice { x, start, count } = *self;
        let row = match x.shape() {
            [rows, rest @ ..] if start.checked_add(count).is_some_and(|end| end <= *rows) => {
                rest.iter().product::<usize>()
            }
            shape => {
                return Err(check.error(format!(
                    "x has shape {shape:?}; the first dimension is too short for {count} rows from row {start} on"
                )));
            }
        };
        check.part("x", x, DType::F32, count * row)?;
        Ok(row)
    }
}

impl Var {
    /// The rows of this value above those of `other`. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes differ in a dimension other than the first.
    pub fn concat(&self, other: &Var) -> Result<Var> {
        let (a, b) = (self.tensor(), other.tensor());
        let y = self.device().run(Concat { a, b })?;
        let needed = [self.is_tracked(), other.is_tracked()];
        let (rows_a, rows_b) = (self.shape()[0], other.shape()[0]);
        let inputs = [("a", self), ("b", other)];
        Var::record_some(Concat::NAME, y, &inputs, move |device, dy| {
            let rows = |start, count| {
                let x = &dy;
                device.run(Slice { x, start, count })
            };
            let da = needed[0].then(|| rows(0, rows_a)).transpose()?;
            let db = needed[1].then(|| rows(rows_a, rows_b)).transpose()?;
            Ok(vec![da, db])
        })
    }

    /// Rows `start..start + count`. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if the value has fewer rows.
    pub fn slice(&self, start: usize, count: usize) -> Result<Var> {
        let x = self.tensor();
        let y = self.device().run(Slice { x, start, count })?;
        let shape = self.shape().to_vec();
        Var::record(Slice::NAME, y, [("x", self)], move |device, dy| {
            let zeros = |rows| Tensor::zeros(&with_rows(&shape, rows), DType::F32, device);
            let below = shape[0] - start - count;
            let mut dx = dy;
            if start > 0 {
                let a = &zeros(start)?;
                dx = device.run(Concat { a, b: &dx })?;
            }
            if below > 0 {
                let b = &zeros(below)?;
                dx = device.run(Concat { a: &dx, b })?;
            }
            Ok([dx])
        })
    }

    /// The same elements under another shape. Copies nothing.
    ///
    /// # Errors
    /// `Error::Shape` if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Var> {
        let y = self.tensor().reshape(shape)?;
        let shape = self.shape().to_vec();
        Var::record("reshape", y, [("x", self)], move |_, dy| {
            Ok([dy.reshape(&shape)?])
        })
    }
}

/// `shape` with another number of rows.
fn with_rows(shape: &[usize], rows: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[0] = rows;
    shape
}
