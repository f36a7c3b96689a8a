//! One task per image or plane.

use super::{GatherImages, Normalize, PaddedCrops, Rotate90};
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for GatherImages<'_> {
    fn run(&self, cpu: &Cpu, len: usize) -> Result<()> {
        let (first, indices) = (self.first, self.indices);
        let bytes = cpu.read_u8(self.images)?;
        let mut y = cpu.write(self.out)?;
        let stored = self.images.shape()[0];
        for_chunks(&mut y, len, |row, pixels| {
            let image = (indices[row] as usize).checked_sub(first);
            if let Some(image) = image.filter(|&image| image < stored) {
                for (pixel, &byte) in pixels.iter_mut().zip(&bytes[image * len..][..len]) {
                    *pixel = f32::from(byte) / 255.0;
                }
            }
        });
        Ok(())
    }
}

impl RunOn<Cpu> for Normalize<'_> {
    fn run(&self, cpu: &Cpu, [_, _, h, w]: [usize; 4]) -> Result<Tensor> {
        let (mean, std) = (self.mean, self.std);
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(source.len());
        for_chunks(&mut y, h * w, |plane, pixels| {
            let (mean, std) = (mean[plane % 3], std[plane % 3]);
            for (pixel, value) in pixels.iter_mut().zip(&source[plane * h * w..]) {
                *pixel = (value - mean) / std;
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}

impl RunOn<Cpu> for PaddedCrops<'_> {
    fn run(&self, cpu: &Cpu, [_, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let (padding, crops) = (self.padding, self.crops);
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(source.len());
        for_chunks(&mut y, c * h * w, |image, pixels| {
            let crop = crops[image];
            for (row, line) in pixels.chunks_exact_mut(w.max(1)).enumerate() {
                let (channel, i) = (row / h, row % h);
                let plane = &source[(image * c + channel) * h * w..][..h * w];
                let from = (i + crop.top as usize).checked_sub(padding);
                for (j, pixel) in line.iter_mut().enumerate() {
                    let j = if crop.flip == 0 { j } else { w - 1 - j };
                    let column = (j + crop.left as usize).checked_sub(padding);
                    *pixel = match (from, column) {
                        (Some(row), Some(column)) if row < h && column < w => {
                            plane[row * w + column]
                        }
                        _ => 0.0,
                    };
                }
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}

impl RunOn<Cpu> for Rotate90<'_> {
    fn run(&self, cpu: &Cpu, [_, c, size, _]: [usize; 4]) -> Result<Tensor> {
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(source.len());
        for_chunks(&mut y, size * size, |plane, pixels| {
            let from = &source[plane * size * size..][..size * size];
            let last = size.saturating_sub(1);
            for (index, pixel) in pixels.iter_mut().enumerate() {
                let (i, j) = (index / size, index % size);
                let (row, column) = match self.quarter_turns[plane / c] {
                    0 => (i, j),
                    1 => (j, last - i),
                    2 => (last - i, last - j),
                    _ => (last - j, i),
                };
                *pixel = from[row * size + column];
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}
