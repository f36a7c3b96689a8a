//! Element-wise operations on tensors of any shape. Two operands have the same shape.
//!
//! | operation | result | backward |
//! | --- | --- | --- |
//! | [`Add`] | `y = a + b` | `da = dy`, `db = dy` |
//! | [`Relu`] | `y = max(x, 0)`; NaN stays NaN | [`ReluBackward`] |
//! | [`ReluBackward`] | `dx = dy` if `y > 0`, otherwise 0 | |
//! | [`Scale`] | `y = factor x` | `dx = factor dy` |
//! | [`Accumulate`] | `sum + x`, in place if no other tensor shares the memory of `sum` | |
//! | [`Broadcast`] | `y_i = value` | |
//!
//! `Add`, `Relu`, `ReluBackward` and `Accumulate` take activations, f32 or f16.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

pub(crate) use cpu::relu_backward;

use crate::autograd::Var;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// `y = a + b`
pub struct Add<'a> {
    pub a: &'a Tensor,
    pub b: &'a Tensor,
}

impl Op for Add<'_> {
    const NAME: &'static str = "add";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation("a", self.a)?;
        check.same(("a", self.a), ("b", self.b))
    }

    fn flops(&self, _: ()) -> u64 {
        self.a.len() as u64
    }
}

/// `y = max(x, 0)`. NaN stays NaN.
pub struct Relu<'a> {
    pub x: &'a Tensor,
}

impl Op for Relu<'_> {
    const NAME: &'static str = "relu";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation("x", self.x)
    }

    fn flops(&self, _: ()) -> u64 {
        self.x.len() as u64
    }
}

/// `dx = dy` if `y > 0`, otherwise 0, for the result `y` of the forward pass. `dx` overwrites `dy`
/// if no other tensor shares its memory.
pub struct ReluBackward<'a> {
    pub dy: Tensor,
    pub y: &'a Tensor,
}

impl Op for ReluBackward<'_> {
    const NAME: &'static str = "relu_backward";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation("dy", &self.dy)?;
        check.same(("dy", &self.dy), ("y", self.y))
    }

    fn flops(&self, _: ()) -> u64 {
        self.y.len() as u64
    }
}

/// `y = factor x`
pub struct Scale<'a> {
    pub factor: f32,
    pub x: &'a Tensor,
}

impl Op for Scale<'_> {
    const NAME: &'static str = "scale";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", self.x)
    }

    fn flops(&self, _: ()) -> u64 {
        self.x.len() as u64
    }
}

/// `sum + x`. The result overwrites `sum` if no other tensor shares its memory.
pub struct Accumulate<'a> {
    pub sum: Tensor,
    pub x: &'a Tensor,
}

impl Op for Accumulate<'_> {
    const NAME: &'static str = "accumulate";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.activation("sum", &self.sum)?;
        check.same(("sum", &self.sum), ("x", self.x))
    }

    fn flops(&self, _: ()) -> u64 {
        self.x.len() as u64
    }
}

/// A tensor of `shape` whose elements equal the device scalar `value`, `[1]`.
pub struct Broadcast<'a> {
    pub value: &'a Tensor,
    pub shape: &'a [usize],
}

impl Op for Broadcast<'_> {
    const NAME: &'static str = "broadcast";
    type Sizes = usize;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        check.tensor("value", self.value, &[1], DType::F32)?;
        check.elements(self.shape)
    }
}

impl Var {
    /// The sum of two values of the same shape. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes or element types differ.
    pub fn add(&self, other: &Var) -> Result<Var> {
        let (a, b) = (self.tensor(), other.tensor());
        let y = self.device().run(Add { a, b })?;
        Var::record(Add::NAME, y, [("a", self), ("b", other)], |_, dy| {
            Ok([dy.clone(), dy])
        })
    }

    /// `max(x, 0)` of each element. Saves the result.
    ///
    /// # Errors
    /// `Error::Shape` if `x` is neither f32 nor f16.
    pub fn relu(&self) -> Result<Var> {
        let y = self.device().run(Relu { x: self.tensor() })?;
        let saved = y.clone();
        Var::record(Relu::NAME, y, [("x", self)], move |device, dy| {
            Ok([device.run(ReluBackward { dy, y: &saved })?])
        })
    }

    /// `factor x`. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if `x` is not f32.
    pub fn scale(&self, factor: f32) -> Result<Var> {
        let x = self.tensor();
        let y = self.device().run(Scale { factor, x })?;
        Var::record(Scale::NAME, y, [("x", self)], move |device, dy| {
            Ok([device.run(Scale { factor, x: &dy })?])
        })
    }
}
