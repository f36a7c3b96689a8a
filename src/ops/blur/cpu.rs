//! One task per plane: a pass along the rows, then one along the columns.

use super::GaussianBlur;
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// The pixel at `index - radius` of `len` pixels and their reflection on both sides.
fn reflected(index: usize, radius: usize, len: usize) -> usize {
    let place = index.abs_diff(radius);
    place.min(2 * (len - 1) - place)
}

/// Adds `weight` times the pixels of `x` to `y`.
fn add(y: &mut [f32], weight: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

impl RunOn<Cpu> for GaussianBlur<'_> {
    fn run(&self, cpu: &Cpu, [_, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let (size, radius) = (self.kernel_size, self.kernel_size / 2);
        let all = self.weights();
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(source.len());
        for_chunks(&mut y, h * w, |plane, out| {
            let (image, x) = (plane / c, &source[plane * h * w..][..h * w]);
            if self.sigmas[image] == 0.0 {
                out.copy_from_slice(x);
                return;
            }
            let weights = || all[image * size..][..size].iter().enumerate();
            let mut rows = vec![0.0; h * w];
            let mut padded = vec![0.0; w + 2 * radius];
            for (x, row) in x.chunks_exact(w).zip(rows.chunks_exact_mut(w)) {
                for (i, pixel) in padded.iter_mut().enumerate() {
                    *pixel = x[reflected(i, radius, w)];
                }
                weights().for_each(|(i, &weight)| add(row, weight, &padded[i..]));
            }
            for (row, line) in out.chunks_exact_mut(w).enumerate() {
                line.fill(0.0);
                for (i, &weight) in weights() {
                    let from = reflected(row + i, radius, h);
                    add(line, weight, &rows[from * w..][..w]);
                }
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}
