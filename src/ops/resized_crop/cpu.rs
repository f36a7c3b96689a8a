//! Resized crops: bilinear, antialiased, half-pixel centres, as torch's `_upsample_bilinear2d_aa`.
//!
//! When `from` pixels are resized to `to`, the weight of source pixel j in result pixel i is
//! `max(0, 1 - |(j + 1/2) - (i + 1/2) from / to| / max(1, from / to))`, divided by the sum of
//! weights. Multiplied by `2 max(from, to)`, the weight before this division is an integer:
//! `2 max(from, to) - |(2j + 1) to - (2i + 1) from|`. The code computes the integers, so rounding
//! never decides whether a pixel has a weight.

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
            // The rows of the crop, resized to `size` columns.
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

/// The weights of all result pixels in one dimension.
struct Filter {
    /// The first source pixel of each result pixel, and the index of its first weight.
    starts: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Filter {
    /// The filter that resizes `from` pixels to `to`, in reverse order if `is_mirrored`.
    fn new(from: usize, to: usize, is_mirrored: bool) -> Self {
        let (from, to) = (from as i64, to as i64);
        let radius = 2 * from.max(to);
        let mut filter = Filter {
            starts: Vec::with_capacity(to as usize),
            weights: Vec::new(),
        };
        for i in 0..to {
            let i = if is_mirrored { to - 1 - i } else { i };
            let center = (2 * i + 1) * from;
            let weight = |j: i64| radius - ((2 * j + 1) * to - center).abs();
            // The first j with a weight above 0 is the first with (2j + 1) to > center - radius.
            let first = ((center - radius).div_euclid(to) + 1).div_euclid(2).max(0);
            let start = filter.weights.len();
            let integers: Vec<i64> = (first..from)
                .map(weight)
                .take_while(|&weight| weight > 0)
                .collect();
            let sum = integers.iter().sum::<i64>() as f64;
            let weights = integers.iter().map(|&weight| (weight as f64 / sum) as f32);
            filter.weights.extend(weights);
            filter.starts.push((first as usize, start));
        }
        filter
    }

    /// The first source pixel of result pixel `i`, and the weights.
    fn taps(&self, i: usize) -> (usize, &[f32]) {
        let (first, start) = self.starts[i];
        let end = self.starts.get(i + 1).map_or(self.weights.len(), |s| s.1);
        (first, &self.weights[start..end])
    }

    /// Resizes one row of pixels.
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

    /// Resizes the columns of an image with rows of `width` pixels.
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
