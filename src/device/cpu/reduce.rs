//! Sums in a fixed order: chunks of fixed size, each in float64, then their sums in order.

use super::activations::read_activations;
use super::parallel::{self, CHUNK};
use super::{CpuDevice, read_f32, write_u32};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The sum of `values` in eight float64 lanes, which the compiler keeps in vector registers.
pub(super) fn sum_f64(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let blocks = values.chunks_exact(8);
    let rest: f64 = blocks.remainder().iter().map(|&x| f64::from(x)).sum();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

pub(super) fn sum(device: &CpuDevice, x: &Tensor) -> Result<Tensor> {
    let values = read_f32("sum", "x", x)?;
    let chunks: Vec<&[f32]> = values.chunks(CHUNK).collect();
    let partial = parallel::map(chunks.len(), |i| sum_f64(chunks[i]));
    let mut y = device.take(1);
    y[0] = partial.iter().sum::<f64>() as f32;
    Ok(device.floats(&[1], y))
}

pub(super) fn sum_rows(device: &CpuDevice, x: &Tensor) -> Result<Tensor> {
    let [_, columns] = x.matrix("sum_rows", "x")?;
    let values = read_f32("sum_rows", "x", x)?;
    let mut sums = vec![0.0f64; columns];
    for row in values.chunks(columns.max(1)) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    let mut y = device.take(columns);
    y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum as f32);
    Ok(device.floats(&[columns], y))
}

pub(super) fn check_finite(_: &CpuDevice, x: &Tensor, flag: &Tensor) -> Result<()> {
    flag.expect("check_finite", "flag", &[1], DType::U32)?;
    shapes::activations("check_finite", "x", x)?;
    let stored = read_activations("check_finite", "x", x)?;
    // A fold without an early end is one that the compiler vectorises.
    let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, x| all & x.is_finite());
    let finite = |i: usize| {
        let range = i * CHUNK..x.len().min((i + 1) * CHUNK);
        stored.values().with(range, finite)
    };
    // Taken even where it is not set, so that a flag on another device is refused whatever `x` holds.
    let mut flag = write_u32("check_finite", "flag", flag)?;
    if parallel::map(x.len().div_ceil(CHUNK), finite).contains(&false) {
        flag[0] = 1;
    }
    Ok(())
}
