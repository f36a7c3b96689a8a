//! Matrix products in fixed tiles of the result. One thread computes each tile with one call of the
//! crate `gemm`, so the result does not depend on the number of threads.

use super::{Gemm, GemmSizes, Linear, Operand, rounded_if};
use crate::device::cpu::matmul::{Accumulate, View, matmul};
use crate::device::cpu::parallel;
use crate::device::cpu::scratch::with_scratch;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// Rows and columns of a tile of a wide result. Large tiles amortise the packing of both operands,
/// which is repeated for each tile.
const ROWS: usize = 128;
const COLUMNS: usize = 256;

/// Calls `body` for each tile of a result `[m, n]` with the tile's first row and column, its
/// elements, and its width.
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
        let parts = line.chunks_mut(COLUMNS);
        (tiles[band..].iter_mut().zip(parts)).for_each(|(tile, part)| tile.push(part));
    }
    parallel::for_chunks(&mut tiles, 1, |i, tile| {
        let lines = &mut tile[0];
        let width = lines[0].len();
        with_scratch([lines.len() * width], |[tile]| {
            body([i / across * ROWS, i % across * COLUMNS], tile, width);
            for (line, result) in lines.iter_mut().zip(tile.chunks(width)) {
                line.copy_from_slice(result);
            }
        });
    });
}

/// The operand with elements `values`.
fn view<'a>(values: &'a [f32], operand: Operand<'_>) -> View<'a> {
    let view = View::rows(values, operand.x.shape()[1]);
    if operand.is_transposed {
        view.transposed()
    } else {
        view
    }
}

/// Computes `a b`, plus `bias` if there is one.
fn product(
    cpu: &Cpu,
    Gemm { a, b }: Gemm<'_>,
    bias: Option<&Tensor>,
    GemmSizes { m, n, k }: GemmSizes,
) -> Result<Tensor> {
    let bias = bias.map(|bias| cpu.read(bias)).transpose()?;
    let [a_x, b_x] = &rounded_if(cpu.rounds_factors(), [a.x, b.x], |cast| cpu.run(cast))?;
    let (a_values, b_values) = (cpu.read(a_x)?, cpu.read(b_x)?);
    let (a, b) = (view(&a_values, a), view(&b_values, b));
    let mut c = cpu.allocate(m * n);
    for_tiles(&mut c, [m, n], |[row, column], tile, width| {
        let accumulate = match &bias {
            None => Accumulate::Overwrite,
            Some(bias) => {
                let bias = &bias[column..][..width];
                tile.chunks_mut(width)
                    .for_each(|row| row.copy_from_slice(bias));
                Accumulate::Add
            }
        };
        let sizes = [tile.len() / width, width, k];
        let (a, b) = (a.after_rows(row), b.after_columns(column));
        matmul(sizes, a, b, accumulate, tile, width);
    });
    Ok(cpu.floats(&[m, n], c))
}

impl RunOn<Cpu> for Gemm<'_> {
    fn run(&self, cpu: &Cpu, sizes: GemmSizes) -> Result<Tensor> {
        product(cpu, *self, None, sizes)
    }
}

impl RunOn<Cpu> for Linear<'_> {
    fn run(&self, cpu: &Cpu, sizes: GemmSizes) -> Result<Tensor> {
        product(cpu, self.product(), Some(self.bias), sizes)
    }
}
