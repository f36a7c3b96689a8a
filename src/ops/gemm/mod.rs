//! Matrix products `C = op(A) op(B)`, where `op` transposes or not, and the linear layer
//! `y = x w^T + bias`.
//!
//! `A` is `[M, K]`, or `[K, M]` if it is transposed. `B` is `[K, N]`, or `[N, K]`. `C` is `[M, N]`.
//!
//! Backward of a product, with `P = op(A)` and `Q = op(B)`: `dP = dC Q^T` and `dQ = P^T dC`. For a
//! transposed operand, the gradient is transposed too:
//!
//! | A | B | dA | dB |
//! | --- | --- | --- | --- |
//! | as it is | as it is | dC B^T | A^T dC |
//! | as it is | transposed | dC B | dC^T A |
//! | transposed | as it is | B dC^T | A dC |
//! | transposed | transposed | B^T dC^T | dC^T A^T |
//!
//! If a device rounds factors ([`Device::round_factors`](crate::device::Device::round_factors)),
//! the elements of both are rounded to f16, and the products of these are added in f32.
//!
//! Backward of the linear layer: `dx = dy w`, `dw = dy^T x`, and `dbias` is the sum of the rows of
//! `dy`. Both save each operand if the gradient of the other one is needed.

pub(crate) mod cases;
mod cpu;
mod gpu;
mod pack;
mod reduce;
#[cfg(test)]
mod tests;
pub(crate) mod tiled;

pub(crate) use gpu::{Tile, tiles};
pub(crate) use pack::{Layout, pack};
pub(crate) use reduce::Target;

use crate::autograd::Var;
use crate::device::{Check, Op, product};
use crate::error::Result;
use crate::ops::cast::Cast;
use crate::ops::reduce::SumRows;
use crate::tensor::{DType, Tensor};

/// A matrix product.
#[derive(Clone, Copy)]
pub struct Gemm<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
}

/// A matrix, which is transposed for the product if `is_transposed`.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub x: &'a Tensor,
    pub is_transposed: bool,
}

impl<'a> From<&'a Tensor> for Operand<'a> {
    fn from(x: &'a Tensor) -> Self {
        operand(x, false)
    }
}

/// The operand `x^T`.
pub fn transposed(x: &Tensor) -> Operand<'_> {
    operand(x, true)
}

/// The operand `x`, or `x^T` if `is_transposed`.
fn operand(x: &Tensor, is_transposed: bool) -> Operand<'_> {
    Operand { x, is_transposed }
}

impl Operand<'_> {
    /// The rows and columns of the operand.
    fn sizes(self, check: &mut Check<'_>, name: &str) -> Result<[usize; 2]> {
        let [rows, columns] = check.matrix(name, self.x)?;
        Ok(if self.is_transposed {
            [columns, rows]
        } else {
            [rows, columns]
        })
    }
}

/// The sizes of a product: each element of `C [m, n]` is a sum of `k` terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmSizes {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// The factors of a product. If `rounds`, those of f32 are rounded to f16, and stored as f32.
/// `cast` runs a conversion on their device.
pub(crate) fn rounded_if(
    rounds: bool,
    factors: [&Tensor; 2],
    cast: impl Fn(Cast<'_>) -> Result<Tensor>,
) -> Result<[Tensor; 2]> {
    let [a, b] = factors.map(|x| {
        if !rounds || x.dtype() != DType::F32 {
            return Ok(x.clone());
        }
        // Rounded by a store, since a driver may leave out a conversion to f16 and back.
        let (x, dtype) = (
            &cast(Cast {
                x,
                dtype: DType::F16,
            })?,
            DType::F32,
        );
        cast(Cast { x, dtype })
    });
    Ok([a?, b?])
}

/// Returns the sizes of the product `a b` of two named operands. Fails if the inner sizes differ.
fn sizes(
    check: &mut Check<'_>,
    a: (&str, Operand<'_>),
    b: (&str, Operand<'_>),
) -> Result<GemmSizes> {
    let [m, k] = a.1.sizes(check, a.0)?;
    let [terms, n] = b.1.sizes(check, b.0)?;
    if k != terms {
        return Err(check.error(format!(
            "{} is {m} x {k} and {} is {terms} x {n}; the inner sizes must be equal",
            a.0, b.0
        )));
    }
    check.elements(&[m, n])?;
    Ok(GemmSizes { m, n, k })
}

impl<'a> Gemm<'a> {
    /// The product of two matrices, each `&Tensor` or [`transposed`].
    pub fn new(a: impl Into<Operand<'a>>, b: impl Into<Operand<'a>>) -> Self {
        Gemm {
            a: a.into(),
            b: b.into(),
        }
    }
}

impl Op for Gemm<'_> {
    const NAME: &'static str = "gemm";
    type Sizes = GemmSizes;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<GemmSizes> {
        sizes(check, ("a", self.a), ("b", self.b))
    }

    fn flops(&self, GemmSizes { m, n, k }: GemmSizes) -> u64 {
        product(&[2, m, n, k])
    }
}

/// `y [N, O] = x [N, I] w^T + bias`, with `w [O, I]` and `bias [O]`.
pub struct Linear<'a> {
    pub x: &'a Tensor,
    pub w: &'a Tensor,
    pub bias: &'a Tensor,
}

impl<'a> Linear<'a> {
    fn product(&self) -> Gemm<'a> {
        Gemm::new(self.x, transposed(self.w))
    }
}

impl Op for Linear<'_> {
    const NAME: &'static str = "linear";
    type Sizes = GemmSizes;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<GemmSizes> {
        let Gemm { a, b } = self.product();
        let sizes = sizes(check, ("x", a), ("w^T", b))?;
        check.tensor("bias", self.bias, &[sizes.n], DType::F32)?;
        Ok(sizes)
    }

    fn flops(&self, GemmSizes { m, n, k }: GemmSizes) -> u64 {
        product(&[m, n, 2 * k + 1])
    }
}

impl Var {
    /// The matrix product of `self [M, K]` and `other [K, N]`.
    ///
    /// # Errors
    /// `Error::Shape` if the inner sizes differ.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        self.gemm(false, other, false)
    }

    /// The matrix product of two operands, each transposed or not.
    ///
    /// # Errors
    /// `Error::Shape` if the inner sizes differ.
    pub fn gemm(&self, transpose_a: bool, other: &Var, transpose_b: bool) -> Result<Var> {
        let a = operand(self.tensor(), transpose_a);
        let b = operand(other.tensor(), transpose_b);
        let c = self.device().run(Gemm { a, b })?;
        let saved_a = other.is_tracked().then(|| self.tensor().clone());
        let saved_b = self.is_tracked().then(|| other.tensor().clone());
        let inputs = [("a", self), ("b", other)];
        Var::record_some(Gemm::NAME, c, &inputs, move |device, dc| {
            let da = saved_b.map(|b| {
                device.run(if transpose_a {
                    Gemm::new(operand(&b, transpose_b), transposed(&dc))
                } else {
                    Gemm::new(&dc, operand(&b, !transpose_b))
                })
            });
            let db = saved_a.map(|a| {
                device.run(if transpose_b {
                    Gemm::new(transposed(&dc), operand(&a, transpose_a))
                } else {
                    Gemm::new(operand(&a, !transpose_a), &dc)
                })
            });
            Ok(vec![da.transpose()?, db.transpose()?])
        })
    }

    /// A linear layer: `x w^T + bias` of `x [N, I]`, `w [O, I]` and `bias [O]`.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match.
    pub fn linear(&self, w: &Var, bias: &Var) -> Result<Var> {
        let y = self.device().run(Linear {
            x: self.tensor(),
            w: w.tensor(),
            bias: bias.tensor(),
        })?;
        let saved_w = self.is_tracked().then(|| w.tensor().clone());
        let saved_x = w.is_tracked().then(|| self.tensor().clone());
        let needs_dbias = bias.is_tracked();
        let slots = [w, bias].map(Var::gradient_slot);
        let inputs = [("x", self), ("w", w), ("bias", bias)];
        Var::record_some(Linear::NAME, y, &inputs, move |device, dy| {
            let dx = saved_w.map(|w| device.run(Gemm::new(&dy, &w)));
            let [of_w, of_bias] = slots.map(|slot| vec![slot]);
            let dw = saved_x.map(|x| device.run_into(Gemm::new(transposed(&dy), &x), of_w));
            let dbias = needs_dbias.then(|| device.run_into(SumRows { x: &dy }, of_bias));
            Ok(vec![dx.transpose()?, dw.transpose()?, dbias.transpose()?])
        })
    }
}
