//! One task per row. Sums are in float64.

use super::{L2Normalize, L2NormalizeBackward, Normalized};
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for L2Normalize<'_> {
    fn run(&self, cpu: &Cpu, [n, d]: [usize; 2]) -> Result<Normalized> {
        let (x, eps) = (cpu.read(self.x)?, self.eps);
        let mut norm = cpu.allocate(n);
        for_chunks(&mut norm, 1, |i, norm| {
            let square: f64 = x[i * d..][..d].iter().map(|&x| f64::from(x).powi(2)).sum();
            norm[0] = (square.sqrt() as f32).max(eps);
        });
        let mut y = cpu.allocate(n * d);
        for_chunks(&mut y, d, |i, y| {
            let x = &x[i * d..][..d];
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = x / norm[i]);
        });
        Ok(Normalized {
            y: cpu.floats(&[n, d], y),
            norm: cpu.floats(&[n], norm),
        })
    }
}

impl RunOn<Cpu> for L2NormalizeBackward<'_> {
    fn run(&self, cpu: &Cpu, [n, d]: [usize; 2]) -> Result<Tensor> {
        let (dy, y) = (cpu.read(self.dy)?, cpu.read(&self.forward.y)?);
        let (norm, eps) = (cpu.read(&self.forward.norm)?, self.eps);
        let mut dx = cpu.allocate(n * d);
        for_chunks(&mut dx, d, |i, dx| {
            let (dy, y) = (&dy[i * d..][..d], &y[i * d..][..d]);
            let products = dy.iter().zip(y);
            let along: f64 = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            // The backward pass of a row that was divided by the constant eps has no second term.
            let along = if norm[i] > eps { along as f32 } else { 0.0 };
            for (dx, (&dy, &y)) in dx.iter_mut().zip(dy.iter().zip(y)) {
                *dx = (dy - y * along) / norm[i];
            }
        });
        Ok(cpu.floats(&[n, d], dx))
    }
}
