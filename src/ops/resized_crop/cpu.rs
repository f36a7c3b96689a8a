//! Resized crops: bilinear, antialiased, half-pixel centres, as torch's `_upsample_bilinear2d_aa`.
//!
//! Along each direction, result pixel i of `to` takes source pixel j of `from` with the weight
//! `max(0, 1 - |(j + 1/2) - (i + 1/2) from / to| / max(1, from / to))`, and the weights are divided by their sum. Times
//! `2 max(from, to)` every weight is a whole number, `2 max(from, to) - |(2j + 1) to - (2i + 1) from|`: computed so,
//! the weights are exact, and no rounding decides which pixels a result pixel sees.

use super::{CropSizes, ResizedCrops};
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for ResizedCrops<'_> {
    fn run(&self, cpu: &Cpu, CropSizes { c, h, w }: CropSizes) -> Result<Tensor> {
        let size = self.size;
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(self.crops.len() * c * size * size);
        for_chunks(&mut y, c * size * size, |index, out| {
            let crop = self.crops[index];
            let (top, left) = (crop.top as usize, crop.left as usize);
            let (height, width) = (crop.height as usize, crop.width as usize);
            let rows = Filter::new(height, size, false);
            let columns = Filter::new(width, size, crop.flip != 0);
            // The crop's rows, already `size` wide.
            let mut narrowed = vec![0.0f32; height * size];
            for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
                let image = &source[(crop.image as usize * c + channel) * h * w..][..h * w];
                for (i, line) in narrowed.chunks_exact_mut(size).enumerate() {
                    columns.along(&image[(top + i) * w + left..][..width], line);
                }
                rows.across(&narrowed, size, plane);
            }
        });
        Ok(cpu.floats(&[self.crops.len(), c, size, size], y))
    }
}

/// The weights of every result pixel along one direction.
struct Filter {
    /// First source pixel of each result pixel, and where its weights begin.
    starts: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Filter {
    /// The filter that makes `to` pixels of `from`, in reverse order where `mirrored`.
    fn new(from: usize, to: usize, mirrored: bool) -> Self {
        let (from, to) = (from as i64, to as i64);
        let radius = 2 * from.max(to);
        let mut filter = Filter {
            starts: Vec::with_capacity(to as usize),
            weights: Vec::new(),
        };
        for i in 0..to {
            let i = if mirrored { to - 1 - i } else { i };
            let center = (2 * i + 1) * from;
            let weight = |j: i64| radius - ((2 * j + 1) * to - center).abs();
            // The first j with a weight above 0 is the first with (2j + 1) to > center - radius.
            let first = ((center - radius).div_euclid(to) + 1).div_euclid(2).max(0);
            let start = filter.weights.len();
            let whole: Vec<i64> = (first..from)
                .map(weight)
                .take_while(|&weight| weight > 0)
                .collect();
            let sum = whole.iter().sum::<i64>() as f64;
            filter
                .weights
                .extend(whole.iter().map(|&weight| (weight as f64 / sum) as f32));
            filter.starts.push((first as usize, start));
        }
        filter
    }

    /// Result pixel i: where its source pixels begin, and their weights.
    fn taps(&self, i: usize) -> (usize, &[f32]) {
        let (first, start) = self.starts[i];
        let end = self.starts.get(i + 1).map_or(self.weights.len(), |s| s.1);
        (first, &self.weights[start..end])
    }

    /// Filters one row of pixels.
    fn along(&self, source: &[f32], out: &mut [f32]) {
        for (i, pixel) in out.iter_mut().enumerate() {
            let (first, weights) = self.taps(i);
            *pixel = weights
                .iter()
                .zip(&source[first..])
                .map(|(weight, value)| weight * value)
                .sum();
        }
    }

    /// Filters rows of `width` pixels across each other.
    fn across(&self, source: &[f32], width: usize, out: &mut [f32]) {
        for (i, line) in out.chunks_exact_mut(width).enumerate() {
            let (first, weights) = self.taps(i);
            line.fill(0.0);
            for (k, weight) in weights.iter().enumerate() {
                let row = &source[(first + k) * width..][..width];
                for (pixel, value) in line.iter_mut().zip(row) {
                    *pixel += weight * value;
                }
            }
        }
    }
}
