//! One task per plane, or per group of planes.

use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    Pool2dOptions, PoolSizes,
};
use crate::device::cpu::parallel;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::reduce::sum_f64;
use crate::tensor::Tensor;

/// The maximum of the window at output (i, j), and its index in the plane.
fn maximum(
    plane: &[f32],
    [h, w]: [usize; 2],
    [i, j]: [usize; 2],
    pool: Pool2dOptions,
) -> (f32, u32) {
    let rows = (i * pool.stride).saturating_sub(pool.padding)
        ..(i * pool.stride + pool.kernel - pool.padding).min(h);
    let columns = (j * pool.stride).saturating_sub(pool.padding)
        ..(j * pool.stride + pool.kernel - pool.padding).min(w);
    let mut best = (f32::NEG_INFINITY, (rows.start * w + columns.start) as u32);
    for y in rows {
        for x in columns.clone() {
            let value = plane[y * w + x];
            if value > best.0 || value.is_nan() {
                best = (value, (y * w + x) as u32);
            }
        }
    }
    best
}

impl RunOn<Cpu> for MaxPool2d<'_> {
    fn run(&self, cpu: &Cpu, sizes: PoolSizes) -> Result<MaxPooled> {
        let ([n, c, h, w], [_, _, oh, ow]) = (sizes.x, sizes.y);
        let (stored, options) = (cpu.read_activations(self.x)?, self.options);
        let planes = parallel::map(n * c, |plane| {
            let range = plane * h * w..(plane + 1) * h * w;
            stored.values().with(range, |values| {
                (0..oh * ow)
                    .map(|at| maximum(values, [h, w], [at / ow, at % ow], options))
                    .collect::<Vec<_>>()
            })
        });
        let mut y = cpu.allocate_activations(n * c * oh * ow, self.x.dtype());
        y.for_chunks(oh * ow, |plane, y| {
            let found = y.iter_mut().zip(&planes[plane]);
            found.for_each(|(y, &(value, _))| *y = value);
        });
        let found = planes.iter().flatten();
        let argmax = found.map(|&(_, index)| index).collect();
        Ok(MaxPooled {
            y: cpu.activations(&sizes.y, y),
            argmax: cpu.integers(&sizes.y, argmax),
        })
    }
}

impl RunOn<Cpu> for MaxPool2dBackward<'_> {
    fn run(&self, cpu: &Cpu, sizes: PoolSizes) -> Result<Tensor> {
        let ([n, c, h, w], [_, _, oh, ow]) = (sizes.x, sizes.y);
        let mut dx = cpu.allocate_activations(n * c * h * w, self.dy.dtype());
        let (stored, argmax) = (cpu.read_activations(self.dy)?, cpu.read_u32(self.argmax)?);
        dx.for_chunks(h * w, |plane, dx| {
            dx.fill(0.0);
            let range = plane * oh * ow..(plane + 1) * oh * ow;
            stored.values().with(range.clone(), |dy| {
                for (&index, &dy) in argmax[range].iter().zip(dy) {
                    // A caller of the operation may pass an index outside the plane. It is ignored.
                    if let Some(dx) = dx.get_mut(index as usize) {
                        *dx += dy;
                    }
                }
            });
        });
        Ok(cpu.activations(&sizes.x, dx))
    }
}

/// The number of planes of `pixels` pixels per task of global average pooling.
fn planes_per_task(pixels: usize) -> usize {
    (parallel::CHUNK / pixels.max(1)).max(1)
}

impl RunOn<Cpu> for GlobalAveragePool<'_> {
    fn run(&self, cpu: &Cpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let stored = cpu.read_activations(self.x)?;
        let mut y = cpu.allocate(n * c);
        let planes = planes_per_task(h * w);
        parallel::for_chunks(&mut y, planes, |task, y| {
            let start = task * planes * h * w;
            stored.values().with(start..start + y.len() * h * w, |x| {
                for (y, plane) in y.iter_mut().zip(x.chunks(h * w)) {
                    *y = (sum_f64(plane) / (h * w) as f64) as f32;
                }
            });
        });
        Ok(cpu.floats(&[n, c], y))
    }
}

impl RunOn<Cpu> for GlobalAveragePoolBackward<'_> {
    fn run(&self, cpu: &Cpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let mut dx = cpu.allocate_activations(n * c * h * w, self.dtype);
        let dy = cpu.read(self.dy)?;
        let (plane, planes) = ((h * w).max(1), planes_per_task(h * w));
        dx.for_chunks(planes * plane, |task, dx| {
            for (dx, dy) in dx.chunks_mut(plane).zip(&dy[task * planes..]) {
                dx.fill(dy / plane as f32);
            }
        });
        Ok(cpu.activations(&self.x_shape, dx))
    }
}
