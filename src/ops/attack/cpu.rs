//! A loop over fixed chunks.

use super::AttackStep;
use crate::device::cpu::parallel::{CHUNK, for_chunks};
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for AttackStep<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let &AttackStep {
            alpha,
            eps,
            low,
            high,
            ..
        } = self;
        let (x, dx, clean) = (cpu.read(self.x)?, cpu.read(self.dx)?, cpu.read(self.clean)?);
        let mut y = cpu.allocate(x.len());
        for_chunks(&mut y, CHUNK, |i, part| {
            let range = i * CHUNK..i * CHUNK + part.len();
            let inputs = x[range.clone()]
                .iter()
                .zip(&dx[range.clone()])
                .zip(&clean[range]);
            for (y, ((&x, &dx), &clean)) in part.iter_mut().zip(inputs) {
                let sign = f32::from(dx > 0.0) - f32::from(dx < 0.0);
                let moved = x + alpha * sign;
                let inside = moved.max(clean - eps).min(clean + eps);
                *y = inside.max(low).min(high);
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}
