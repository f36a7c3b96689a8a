//! Launches of `shaders/images.wgsl`, and the ranges of images that the view kernels are given.

use std::ops::Range;

use super::shaders::images::{self as kernels, Params};
use super::{EntryPoint, GpuDevice, Part};
use crate::device::kernels::*;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

/// Bytes at a multiple of which every adapter can start a binding.
const ALIGNMENT: usize = 256;

/// The part of `x` with `count` elements from `start`, from the aligned place before it, and the elements in between.
pub(super) fn window(
    device: &GpuDevice,
    operation: &'static str,
    name: &str,
    x: &Tensor,
    start: usize,
    count: usize,
) -> Result<(Part, u32)> {
    let aligned = ALIGNMENT / x.dtype().bytes();
    let offset = start % aligned;
    let part = device.part(operation, name, x, start - offset, offset + count)?;
    Ok((part, offset as u32))
}

/// The largest number of rows of `row_bytes` bytes whose window fits a binding wherever it starts; at least one, which
/// the launch refuses if it does not fit.
pub(super) fn rows_at_once(device: &GpuDevice, row_bytes: usize) -> usize {
    let limit = device.context.binding_limit as usize;
    (limit.saturating_sub(ALIGNMENT) / row_bytes.max(1)).max(1)
}

/// 0 .. `rows` in ranges of `at_once`.
fn ranges(rows: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows)
        .step_by(at_once)
        .map(move |start| start..rows.min(start + at_once))
}

/// What all kernels of the file are told of images of `shape`; the rest is 0.
fn params([_, c, h, w]: [usize; 4]) -> Params {
    Params {
        channels: c as u32,
        height: h as u32,
        width: w as u32,
        ..bytemuck::Zeroable::zeroed()
    }
}

/// Records `entry` over the images `x [N, C, H, W]` into a new tensor of that shape; `words` are the numbers of an
/// image each.
fn launch<T: bytemuck::Pod>(
    device: &GpuDevice,
    operation: &'static str,
    entry: &'static EntryPoint,
    params: Params,
    x: &Tensor,
    words: Option<&[T]>,
) -> Result<Tensor> {
    let y = device.floats(x.shape())?;
    let image = x.shape()[1..].iter().product::<usize>();
    for rows in ranges(x.shape()[0], rows_at_once(device, 4 * image)) {
        let (start, count) = (rows.start * image, rows.len() * image);
        let (from, x_offset) = window(device, operation, "x", x, start, count)?;
        let (to, y_offset) = window(device, operation, "y", &y, start, count)?;
        let words = words.map(|words| device.words(&words[rows])).transpose()?;
        let mut parts = Vec::with_capacity(3);
        if let Some(words) = &words {
            parts.push(device.whole(operation, "parameters", words)?);
        }
        parts.extend([from, to]);
        let params = Params {
            count: count as u32,
            x_offset,
            y_offset,
            ..params
        };
        device.launch(entry, params, &parts, count.div_ceil(256))?;
    }
    Ok(y)
}

pub(super) fn gather_images(
    device: &GpuDevice,
    images: &Tensor,
    first: usize,
    indices: &[u32],
    out: &Tensor,
) -> Result<()> {
    const OPERATION: &str = "gather_images";
    let shape = shapes::gather_images(images, indices, out)?;
    let image = shape[1..].iter().product::<usize>();
    for rows in ranges(indices.len(), rows_at_once(device, 4 * image)) {
        let count = rows.len() * image;
        let words = device.words(&indices[rows.clone()])?;
        let (to, y_offset) = window(device, OPERATION, "out", out, rows.start * image, count)?;
        for stored in ranges(images.shape()[0], rows_at_once(device, image)) {
            let (bytes, x_offset) = window(
                device,
                OPERATION,
                "images",
                images,
                stored.start * image,
                stored.len() * image,
            )?;
            let params = Params {
                count: count as u32,
                x_offset,
                y_offset,
                first: (first + stored.start) as u32,
                stored: stored.len() as u32,
                ..params(shape)
            };
            let parts = [
                bytes,
                device.whole(OPERATION, "indices", &words)?,
                to.clone(),
            ];
            device.launch(&kernels::GATHER, params, &parts, count.div_ceil(256))?;
        }
    }
    Ok(())
}

pub(super) fn normalize(
    device: &GpuDevice,
    x: &Tensor,
    mean: [f32; 3],
    std: [f32; 3],
) -> Result<Tensor> {
    let params = Params {
        mean0: mean[0],
        mean1: mean[1],
        mean2: mean[2],
        std0: std[0],
        std1: std[1],
        std2: std[2],
        ..params(shapes::normalize(x, mean, std)?)
    };
    launch::<u32>(device, "normalize", &kernels::NORMALIZE, params, x, None)
}

pub(super) fn padded_crop(
    device: &GpuDevice,
    x: &Tensor,
    padding: usize,
    crops: &[PaddedCrop],
) -> Result<Tensor> {
    let params = Params {
        padding: padding as u32,
        ..params(shapes::padded_crops(x, padding, crops)?)
    };
    let words = Some(crops);
    launch(
        device,
        "padded_crop",
        &kernels::PADDED_CROP,
        params,
        x,
        words,
    )
}

pub(super) fn rotate90(device: &GpuDevice, x: &Tensor, quarter_turns: &[u32]) -> Result<Tensor> {
    let params = params(shapes::quarter_turns(x, quarter_turns)?);
    let words = Some(quarter_turns);
    launch(device, "rotate90", &kernels::ROTATE90, params, x, words)
}
