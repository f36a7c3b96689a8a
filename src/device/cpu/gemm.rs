//! Matrix products: fixed tiles of the result, each one call of the crate `gemm` on one thread, so that the result does
//! not depend on the number of threads.

use super::parallel;
use super::product::{Into, View, product};
use super::scratch::with_scratch;
use super::{CpuDevice, read_f32};
use crate::device::kernels::Gemm;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Rows and columns of a tile of a wide result: its part of both operands is packed for it alone, which pays in a large
/// tile.
const ROWS: usize = 128;
const COLUMNS: usize = 256;

/// Calls `body` with each tile of a result `[m, n]`, its first row and column, and its width.
fn for_tiles(
    c: &mut [f32],
    [m, n]: [usize; 2],
    body: impl Fn([usize; 2], &mut [f32], usize) + Sync + Send,
) {
    if n <= COLUMNS {
        let rows = parallel::rows_at_a_time(m);
        return parallel::for_chunks(c, rows * n, |i, tile| body([i * rows, 0], tile, n));
    }
    let across = n.div_ceil(COLUMNS);
    let mut tiles: Vec<Vec<&mut [f32]>> = Vec::new();
    for (row, line) in c.chunks_mut(n).enumerate() {
        if row % ROWS == 0 {
            tiles.resize_with(tiles.len() + across, || Vec::with_capacity(ROWS));
        }
        let band = tiles.len() - across;
        let tiles = tiles[band..].iter_mut();
        tiles
            .zip(line.chunks_mut(COLUMNS))
            .for_each(|(tile, part)| tile.push(part));
    }
    parallel::for_chunks(&mut tiles, 1, |i, tile| {
        let lines = &mut tile[0];
        let width = lines[0].len();
        with_scratch([lines.len() * width], |[tile]| {
            body([i / across * ROWS, i % across * COLUMNS], tile, width);
            let results = tile.chunks(width);
            lines
                .iter_mut()
                .zip(results)
                .for_each(|(line, result)| line.copy_from_slice(result));
        });
    });
}

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
    for_tiles(&mut c, [g.m, g.n], |[row, column], tile, width| {
        let sizes = [tile.len() / width, width, g.k];
        let (left, right) = (left.after_rows(row), right.after_columns(column));
        product(sizes, left, right, Into::Replace, tile, width);
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
    let left = View::rows(&x, g.k);
    let right = View::rows(&w, g.k).transposed();
    for_tiles(&mut y, [g.m, g.n], |[row, column], tile, width| {
        let bias = &bias[column..][..width];
        tile.chunks_mut(width)
            .for_each(|row| row.copy_from_slice(bias));
        let sizes = [tile.len() / width, width, g.k];
        let (left, right) = (left.after_rows(row), right.after_columns(column));
        product(sizes, left, right, Into::Add, tile, width);
    });
    Ok(device.floats(&[g.m, g.n], y))
}
