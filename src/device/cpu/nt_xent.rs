//! NT-Xent in blocks: rows against column tiles, similarities in a tile that is never kept, so that memory grows with the
//! rows and not with their square. A block of rows is one task and meets the tiles in order.

use super::parallel;
use super::product::{Into, View, product};
use super::{CpuDevice, read_f32};
use crate::device::kernels::RowLoss;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Rows of a block and columns of a tile: a tile of 64 x 256 similarities is 64 KiB.
const ROWS: usize = 64;
const COLUMNS: usize = 256;

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

pub(super) fn nt_xent(device: &CpuDevice, z: &Tensor, temperature: f32) -> Result<RowLoss> {
    let [n, d] = shapes::nt_xent(z, temperature)?;
    let z = read_f32("nt_xent", "z", z)?;
    let blocks = parallel::map(n.div_ceil(ROWS), |block| {
        let first = block * ROWS;
        let rows = ROWS.min(n - first);
        // Each row's maximum, sum of exponentials below it, and similarity with its positive.
        let mut state = vec![(f32::NEG_INFINITY, 0.0f64, 0.0f32); rows];
        for_tiles(&z, [n, d], first, rows, |column, width, tile| {
            for (i, ((max, sum, positive), line)) in
                state.iter_mut().zip(tile.chunks_mut(width)).enumerate()
            {
                let row = first + i;
                line.iter_mut().for_each(|s| *s /= temperature);
                let partner = (row + n / 2) % n;
                if (column..column + width).contains(&partner) {
                    *positive = line[partner - column];
                }
                if (column..column + width).contains(&row) {
                    line[row - column] = f32::NEG_INFINITY;
                }
                let top = line.iter().copied().fold(*max, f32::max);
                if top == f32::NEG_INFINITY {
                    // The tile held this row's own column alone, or NaN, which the sum below must see.
                    *sum += line
                        .iter()
                        .filter(|s| s.is_nan())
                        .map(|&s| f64::from(s))
                        .sum::<f64>();
                    continue;
                }
                let scaled = *sum * f64::from(*max - top).exp();
                *sum = scaled
                    + line
                        .iter()
                        .map(|&s| f64::from((s - top).exp()))
                        .sum::<f64>();
                *max = top;
            }
        });
        state
    });
    let mut log_sum_exp = device.take(n);
    let mut total = 0.0;
    for (lse, &(max, sum, positive)) in log_sum_exp.iter_mut().zip(blocks.iter().flatten()) {
        let exact = f64::from(max) + sum.ln();
        *lse = exact as f32;
        total += exact - f64::from(positive);
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
    parallel::for_chunks(&mut dz, ROWS * d, |block, dz| {
        let first = block * ROWS;
        let rows = dz.len() / d;
        dz.fill(0.0);
        for_tiles(&z, [n, d], first, rows, |column, width, tile| {
            for (i, line) in tile.chunks_mut(width).enumerate() {
                let row = first + i;
                for (j, s) in line.iter_mut().enumerate() {
                    let similarity = *s / temperature;
                    *s = (similarity - lse[row]).exp() + (similarity - lse[column + j]).exp();
                }
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
