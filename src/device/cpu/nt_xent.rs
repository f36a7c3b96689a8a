//! NT-Xent in blocks: rows against column tiles, similarities in a tile that is never kept, so that memory grows with
//! the rows and not with their square. A block of rows is one task and meets the tiles in order.

use super::exp::exp;
use super::parallel;
use super::product::{Into, View, product};
use super::vectorised::vectorised;
use super::{CpuDevice, read_f32};
use crate::device::kernels::RowLoss;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Columns of a tile: with a block's rows, at most 256 KiB of similarities, which stay in a core's cache.
const COLUMNS: usize = 512;
/// Partial maxima and sums that the compiler keeps in vector registers.
const LANES: usize = 16;

/// Calls `body` with the first column and the similarities (rows of `width`) of each tile of the block's rows.
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
        product([rows, width, d], left, right, Into::Replace, tile, width);
        body(column, width, tile);
    }
}

/// What a row has met of the others.
#[derive(Clone, Copy)]
struct Row {
    max: f32,
    /// Of the exponentials of similarities less `max`.
    sum: f64,
    /// Similarity with the row's positive.
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

    /// Takes a tile's similarities into the sum.
    #[inline(always)]
    fn meet(&mut self, line: &[f32]) {
        let (lanes, rest) = line.as_chunks::<LANES>();
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let mut tops = [self.max; LANES];
        for lanes in lanes {
            for (top, &s) in tops.iter_mut().zip(lanes) {
                *top = larger(*top, s);
            }
        }
        let top = tops.iter().chain(rest).fold(self.max, |a, &b| larger(a, b));
        // -inf less -inf is NaN, here and below: a row that has met no number yet keeps its sum of nothing.
        let below = if top == f32::NEG_INFINITY { 0.0 } else { top };
        let mut sums = [0.0f64; LANES];
        for lanes in lanes {
            for (sum, &s) in sums.iter_mut().zip(lanes) {
                *sum += f64::from(exp(s - below));
            }
        }
        let sum: f64 = sums.iter().sum();
        let rest: f64 = rest.iter().map(|&s| f64::from(exp(s - below))).sum();
        let scale = if self.max == top {
            1.0
        } else {
            f64::from(self.max - top).exp()
        };
        self.sum = self.sum * scale + sum + rest;
        self.max = top;
    }
}

pub(super) fn nt_xent(device: &CpuDevice, z: &Tensor, temperature: f32) -> Result<RowLoss> {
    let [n, d] = shapes::nt_xent(z, temperature)?;
    let z = read_f32("nt_xent", "z", z)?;
    let of_block = parallel::rows_at_a_time(n);
    let blocks = parallel::map(n.div_ceil(of_block), |block| {
        let first = block * of_block;
        let rows = of_block.min(n - first);
        let mut state = vec![Row::new(); rows];
        for_tiles(&z, [n, d], first, rows, |column, width, tile| {
            for (i, (state, line)) in state.iter_mut().zip(tile.chunks_mut(width)).enumerate() {
                let row = first + i;
                vectorised(
                    #[inline(always)]
                    || line.iter_mut().for_each(|s| *s /= temperature),
                );
                let partner = (row + n / 2) % n;
                if (column..column + width).contains(&partner) {
                    state.positive = line[partner - column];
                }
                if (column..column + width).contains(&row) {
                    line[row - column] = f32::NEG_INFINITY;
                }
                vectorised(
                    #[inline(always)]
                    || state.meet(line),
                );
            }
        });
        state
    });
    let mut log_sum_exp = device.take(n);
    let mut total = 0.0;
    for (lse, row) in log_sum_exp.iter_mut().zip(blocks.iter().flatten()) {
        let exact = f64::from(row.max) + row.sum.ln();
        *lse = exact as f32;
        total += exact - f64::from(row.positive);
    }
    let mut loss = device.take(1);
    loss[0] = (total / n as f64) as f32;
    Ok(RowLoss {
        loss: device.floats(&[1], loss),
        log_sum_exp: device.floats(&[n], log_sum_exp),
    })
}

pub(super) fn nt_xent_backward(
    device: &CpuDevice,
    dloss: &Tensor,
    z: &Tensor,
    temperature: f32,
    forward: &RowLoss,
) -> Result<Tensor> {
    let op = "nt_xent_backward";
    let [n, d] = shapes::nt_xent(z, temperature)?;
    dloss.expect(op, "dloss", &[1], DType::F32)?;
    forward
        .log_sum_exp
        .expect(op, "log_sum_exp", &[n], DType::F32)?;
    let factor = read_f32(op, "dloss", dloss)?[0] / (n as f32 * temperature);
    let lse = read_f32(op, "log_sum_exp", &forward.log_sum_exp)?;
    let z = read_f32(op, "z", z)?;
    let mut dz = device.take(n * d);
    let of_block = parallel::rows_at_a_time(n);
    parallel::for_chunks(&mut dz, of_block * d, |block, dz| {
        let first = block * of_block;
        let rows = dz.len() / d;
        dz.fill(0.0);
        for_tiles(&z, [n, d], first, rows, |column, width, tile| {
            for (i, line) in tile.chunks_mut(width).enumerate() {
                let row = first + i;
                let of_row = lse[row];
                vectorised(
                    #[inline(always)]
                    || {
                        for (s, &of_column) in line.iter_mut().zip(&lse[column..]) {
                            let similarity = *s / temperature;
                            *s = exp(similarity - of_row) + exp(similarity - of_column);
                        }
                    },
                );
                if (column..column + width).contains(&row) {
                    line[row - column] = 0.0;
                }
            }
            let right = View::rows(&z[column * d..], d);
            product(
                [rows, d, width],
                View::rows(tile, width),
                right,
                Into::Add,
                dz,
                d,
            );
        });
        for (i, dz) in dz.chunks_mut(d).enumerate() {
            let partner = (first + i + n / 2) % n;
            let positive = &z[partner * d..][..d];
            for (dz, &positive) in dz.iter_mut().zip(positive) {
                *dz = factor * (*dz - 2.0 * positive);
            }
        }
    });
    Ok(device.floats(&[n, d], dz))
}
