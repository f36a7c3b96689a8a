//! Bytes to float images, normalisation, padded crops and quarter turns.

use super::parallel::for_chunks;
use super::{CpuDevice, read_f32, read_u8, write_f32};
use crate::device::kernels::*;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn gather_images(
    _device: &CpuDevice,
    images: &Tensor,
    first: usize,
    indices: &[u32],
    out: &Tensor,
) -> Result<()> {
    let [_, c, h, w] = shapes::gather_images(images, indices, out)?;
    let bytes = read_u8("gather_images", "images", images)?;
    let mut y = write_f32("gather_images", "out", out)?;
    let (len, stored) = (c * h * w, images.shape()[0]);
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

pub(super) fn normalize(
    device: &CpuDevice,
    x: &Tensor,
    mean: [f32; 3],
    std: [f32; 3],
) -> Result<Tensor> {
    let [_, _, h, w] = shapes::normalize(x, mean, std)?;
    let source = read_f32("normalize", "x", x)?;
    let mut y = device.take(source.len());
    for_chunks(&mut y, h * w, |plane, pixels| {
        let (mean, std) = (mean[plane % 3], std[plane % 3]);
        for (pixel, value) in pixels.iter_mut().zip(&source[plane * h * w..]) {
            *pixel = (value - mean) / std;
        }
    });
    Ok(device.floats(x.shape(), y))
}

pub(super) fn padded_crop(
    device: &CpuDevice,
    x: &Tensor,
    padding: usize,
    crops: &[PaddedCrop],
) -> Result<Tensor> {
    let [_, c, h, w] = shapes::padded_crops(x, padding, crops)?;
    let source = read_f32("padded_crop", "x", x)?;
    let mut y = device.take(source.len());
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
                    (Some(row), Some(column)) if row < h && column < w => plane[row * w + column],
                    _ => 0.0,
                };
            }
        }
    });
    Ok(device.floats(x.shape(), y))
}

pub(super) fn rotate90(device: &CpuDevice, x: &Tensor, quarter_turns: &[u32]) -> Result<Tensor> {
    let [_, c, size, _] = shapes::quarter_turns(x, quarter_turns)?;
    let source = read_f32("rotate90", "x", x)?;
    let mut y = device.take(source.len());
    for_chunks(&mut y, size * size, |plane, pixels| {
        let from = &source[plane * size * size..][..size * size];
        let last = size.saturating_sub(1);
        for (index, pixel) in pixels.iter_mut().enumerate() {
            let (i, j) = (index / size, index % size);
            let (row, column) = match quarter_turns[plane / c] {
                0 => (i, j),
                1 => (j, last - i),
                2 => (last - i, last - j),
                _ => (last - j, i),
            };
            *pixel = from[row * size + column];
        }
    });
    Ok(device.floats(x.shape(), y))
}
