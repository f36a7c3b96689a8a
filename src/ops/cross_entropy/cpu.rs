//! Each row is shifted by its maximum, so that no exponential overflows, and summed in float64.

use super::{CrossEntropy, CrossEntropyBackward, RowLoss};
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for CrossEntropy<'_> {
    fn run(&self, cpu: &Cpu, [n, classes]: [usize; 2]) -> Result<RowLoss> {
        let (logits, labels) = (cpu.read(self.logits)?, cpu.read_u32(self.labels)?);
        let mut log_sum_exp = cpu.allocate(n);
        let mut total = 0.0;
        let rows = logits.chunks(classes).zip(labels.iter());
        for (lse, (row, &label)) in log_sum_exp.iter_mut().zip(rows) {
            let shift = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&x| f64::from(x - shift).exp()).sum();
            let exact = f64::from(shift) + sum.ln();
            *lse = exact as f32;
            total += exact - row.get(label as usize).map_or(f64::NAN, |&x| f64::from(x));
        }
        Ok(RowLoss {
            loss: cpu.filled(&[1], |loss| loss[0] = (total / n as f64) as f32),
            log_sum_exp: cpu.floats(&[n], log_sum_exp),
        })
    }
}

impl RunOn<Cpu> for CrossEntropyBackward<'_> {
    fn run(&self, cpu: &Cpu, [n, classes]: [usize; 2]) -> Result<Tensor> {
        let factor = cpu.read(self.dloss)?[0] / n as f32;
        let (logits, labels) = (cpu.read(self.logits)?, cpu.read_u32(self.labels)?);
        let log_sum_exp = cpu.read(self.log_sum_exp)?;
        let mut dlogits = cpu.allocate(n * classes);
        for_chunks(&mut dlogits, classes, |row, part| {
            let logits = &logits[row * classes..][..classes];
            for (class, (d, &x)) in part.iter_mut().zip(logits).enumerate() {
                let target = f32::from(u8::from(labels[row] as usize == class));
                *d = factor * ((x - log_sum_exp[row]).exp() - target);
            }
        });
        Ok(cpu.floats(&[n, classes], dlogits))
    }
}
