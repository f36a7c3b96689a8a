//! Each task computes the similarities of a block of rows, one tile of columns after the other. A
//! tile is overwritten by the next one, so memory grows linearly with the number of rows.

use super::{NtXent, NtXentBackward};
use crate::device::cpu::exp::exp;
use crate::device::cpu::matmul::{Accumulate, View, matmul};
use crate::device::cpu::parallel;
use crate::device::cpu::simd::simd;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::cross_entropy::RowLoss;
use crate::tensor::Tensor;

/// Columns of a tile. The similarities of a tile take at most 256 KiB, which fit the cache of a
/// core.
const COLUMNS: usize = 512;
/// Partial maxima and sums, which the compiler keeps in vector registers.
const LANES: usize = 16;

/// Calls `body` with the first column, the width, and the products `z z^T` of each tile of a block
/// of rows.
fn for_tiles(
    z: &[f32],
    [n, d]: [usize; 2],
    first: usize,
    rows: usize,
    mut body: impl FnMut(usize, usize, &mut [f32]),
) {
    let mut tile = vec![0.0; rows * COLUMNS];
    for column in (0..n).step_by(COLUMNS) {
        let width = COLUMNS.min(n - column);
        let left = View::rows(&z[first * d..], d);
        let right = View::rows(&z[column * d..], d).transposed();
        let tile = &mut tile[..rows * width];
        let overwrite = Accumulate::Overwrite;
        matmul([rows, width, d], left, right, overwrite, tile, width);
        body(column, width, tile);
    }
}

/// The running maximum and sum of one row over the tiles so far.
#[derive(Clone, Copy)]
struct Row {
    max: f32,
    /// The sum of `exp(s - max)` over the similarities so far.
    sum: f64,
    /// The similarity to the other view of the same image.
    positive: f32,
}

impl Row {
    fn new() -> Self {
        Row {
            max: f32::NEG_INFINITY,
            sum: 0.0,
            positive: 0.0,
        }
    }

    /// Adds the similarities of one tile.
    #[inline(always)]
    fn add(&mut self, line: &[f32]) {
        let (lanes, rest) = line.as_chunks::<LANES>();
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let mut maxima = [self.max; LANES];
        for lanes in lanes {
            for (max, &s) in maxima.iter_mut().zip(lanes) {
                *max = larger(*max, s);
            }
        }
        let max = (maxima.iter().chain(rest)).fold(self.max, |a, &b| larger(a, b));
        // -inf - -inf would be NaN, here and below, in a row whose similarities are all -inf so
        // far.
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let mut sums = [0.0f64; LANES];
        for lanes in lanes {
            for (sum, &s) in sums.iter_mut().zip(lanes) {
                *sum += f64::from(exp(s - shift));
            }
        }
        let sum: f64 = sums.iter().sum();
        let rest: f64 = rest.iter().map(|&s| f64::from(exp(s - shift))).sum();
        let scale = if self.max == max {
            1.0
        } else {
            f64::from(self.max - max).exp()
        };
        self.sum = self.sum * scale + sum + rest;
        self.max = max;
    }
}

impl RunOn<Cpu> for NtXent<'_> {
    fn run(&self, cpu: &Cpu, [n, d]: [usize; 2]) -> Result<RowLoss> {
        let (z, temperature) = (cpu.read(self.z)?, self.temperature);
        let block_rows = parallel::rows_at_a_time(n);
        let blocks = parallel::map(n.div_ceil(block_rows), |block| {
            let first = block * block_rows;
            let rows = block_rows.min(n - first);
            let mut state = vec![Row::new(); rows];
            for_tiles(&z, [n, d], first, rows, |column, width, tile| {
                for (i, (state, line)) in state.iter_mut().zip(tile.chunks_mut(width)).enumerate() {
                    let row = first + i;
                    simd(
                        #[inline(always)]
                        || line.iter_mut().for_each(|s| *s /= temperature),
                    );
                    let positive = (row + n / 2) % n;
                    if (column..column + width).contains(&positive) {
                        state.positive = line[positive - column];
                    }
                    if (column..column + width).contains(&row) {
                        line[row - column] = f32::NEG_INFINITY;
                    }
                    simd(
                        #[inline(always)]
                        || state.add(line),
                    );
                }
            });
            state
        });
        let mut log_sum_exp = cpu.allocate(n);
        let mut total = 0.0;
        for (lse, row) in log_sum_exp.iter_mut().zip(blocks.iter().flatten()) {
            let exact = f64::from(row.max) + row.sum.ln();
            *lse = exact as f32;
            total += exact - f64::from(row.positive);
        }
        Ok(RowLoss {
            loss: cpu.filled(&[1], |loss| loss[0] = (total / n as f64) as f32),
            log_sum_exp: cpu.floats(&[n], log_sum_exp),
        })
    }
}

impl RunOn<Cpu> for NtXentBackward<'_> {
    fn run(&self, cpu: &Cpu, [n, d]: [usize; 2]) -> Result<Tensor> {
        let temperature = self.temperature;
        let factor = cpu.read(self.dloss)?[0] / (n as f32 * temperature);
        let lse = cpu.read(self.log_sum_exp)?;
        let z = cpu.read(self.z)?;
        let mut dz = cpu.allocate(n * d);
        let block_rows = parallel::rows_at_a_time(n);
        parallel::for_chunks(&mut dz, block_rows * d, |block, dz| {
            let first = block * block_rows;
            let rows = dz.len() / d;
            dz.fill(0.0);
            for_tiles(&z, [n, d], first, rows, |column, width, tile| {
                for (i, line) in tile.chunks_mut(width).enumerate() {
                    let row = first + i;
                    let row_lse = lse[row];
                    simd(
                        #[inline(always)]
                        || {
                            for (s, &column_lse) in line.iter_mut().zip(&lse[column..]) {
                                let similarity = *s / temperature;
                                *s = exp(similarity - row_lse) + exp(similarity - column_lse);
                            }
                        },
                    );
                    if (column..column + width).contains(&row) {
                        line[row - column] = 0.0;
                    }
                }
                let (left, right) = (View::rows(tile, width), View::rows(&z[column * d..], d));
                matmul([rows, d, width], left, right, Accumulate::Add, dz, d);
            });
            for (i, dz) in dz.chunks_mut(d).enumerate() {
                let positive = (first + i + n / 2) % n;
                let positive = &z[positive * d..][..d];
                for (dz, &positive) in dz.iter_mut().zip(positive) {
                    *dz = factor * (*dz - 2.0 * positive);
                }
            }
        });
        Ok(cpu.floats(&[n, d], dz))
    }
}
