//! Matrix products: fixed blocks of rows, each one call of the crate `gemm` on one thread, so that the result does not
//! depend on the number of threads.

use super::parallel;
use super::product::{Into, View, product};
use super::{CpuDevice, read_f32};
use crate::device::kernels::Gemm;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Rows of the result that a thread takes at a time.
const ROWS: usize = 64;

pub(super) fn gemm(device: &CpuDevice, options: Gemm, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let g = shapes::gemm(options, a, b)?;
    let (a, b) = (read_f32("gemm", "a", a)?, read_f32("gemm", "b", b)?);
    let left = match options.transpose_a {
        false => View::rows(&a, g.k),
        true => View::rows(&a, g.m).transposed(),
    };
    let right = match options.transpose_b {
        false => View::rows(&b, g.n),
        true => View::rows(&b, g.k).transposed(),
    };
    let mut c = device.take(g.m * g.n);
    parallel::for_chunks(&mut c, ROWS * g.n, |i, block| {
        let part = View {
            data: &left.data[(i * ROWS * left.row).min(left.data.len())..],
            ..left
        };
        let rows = block.len() / g.n;
        product([rows, g.n, g.k], part, right, Into::Replace, block, g.n);
    });
    Ok(device.floats(&[g.m, g.n], c))
}

pub(super) fn linear(device: &CpuDevice, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let [outputs, _] = w.matrix("linear", "w")?;
    bias.expect("linear", "bias", &[outputs], DType::F32)?;
    let options = Gemm {
        transpose_a: false,
        transpose_b: true,
    };
    let g = shapes::gemm(options, x, w)?;
    let (x, w) = (read_f32("linear", "x", x)?, read_f32("linear", "w", w)?);
    let bias = read_f32("linear", "bias", bias)?;
    let mut y = device.take(g.m * g.n);
    parallel::for_chunks(&mut y, ROWS * g.n, |i, block| {
        block
            .chunks_mut(g.n)
            .for_each(|row| row.copy_from_slice(&bias));
        let rows = block.len() / g.n;
        product(
            [rows, g.n, g.k],
            View::rows(&x[i * ROWS * g.k..], g.k),
            View::rows(&w, g.k).transposed(),
            Into::Add,
            block,
            g.n,
        );
    });
    Ok(device.floats(&[g.m, g.n], y))
}
