//! Sums in a fixed order: each chunk in float64, then the sums of the chunks in order.

use super::{CheckFinite, Sum, SumRows};
use crate::device::cpu::parallel::{self, CHUNK};
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for Sum<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let values = cpu.read(self.x)?;
        let chunks: Vec<&[f32]> = values.chunks(CHUNK).collect();
        let partial = parallel::map(chunks.len(), |i| sum_f64(chunks[i]));
        Ok(cpu.filled(&[1], |y| y[0] = partial.iter().sum::<f64>() as f32))
    }
}

impl RunOn<Cpu> for SumRows<'_> {
    fn run(&self, cpu: &Cpu, [_, columns]: [usize; 2]) -> Result<Tensor> {
        let values = cpu.read(self.x)?;
        let mut sums = vec![0.0f64; columns];
        for row in values.chunks(columns.max(1)) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        Ok(cpu.filled(&[columns], |y| {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum as f32);
        }))
    }
}

impl RunOn<Cpu> for CheckFinite<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<()> {
        let (stored, len) = (cpu.read_activations(self.x)?, self.x.len());
        // The compiler vectorises a fold, but not `all`, which exits early.
        let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, x| all & x.is_finite());
        let finite = |i: usize| {
            let range = i * CHUNK..len.min((i + 1) * CHUNK);
            stored.values().with(range, finite)
        };
        if parallel::map(len.div_ceil(CHUNK), finite).contains(&false) {
            cpu.write_u32(self.flag)?[0] = 1;
        }
        Ok(())
    }
}

/// The sum of `values` in eight float64 lanes, which the compiler keeps in vector registers.
pub(crate) fn sum_f64(values: &[f32]) -> f64 {
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
