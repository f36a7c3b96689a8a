//! Convolution as a matrix product over columns (im2col), a block of whole images at a time, so that the columns stay
//! in a core's cache. With `K = C KH KW`:
//!
//! - forward: `y [O, pixels] = w [O, K] columns [K, pixels]`
//! - dx: `columns [K, pixels] = w^T dy`, each column then added to the pixels that it came from
//! - dw: `dw [O, K] = dy [O, pixels] columns^T`, fixed groups of images each into a partial of its own, summed in order

use super::activations::{Activations, NewActivations, read_activations, read_weight};
use super::batch_norm::{Normalization, batch_norm, read_activation};
use super::parallel;
use super::product::{Into, View, product};
use super::scratch::with_scratch;
use super::{CpuDevice, winograd};
use crate::device::kernels::{Activation, ChannelNorm};
use crate::device::shapes::{self, Conv2d, ConvGeometry};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Columns of a block at least, where the batch has them: fewer would leave the product's inner loops short.
const COLUMNS: usize = 256;

/// Floats of a block's columns at most, where an image has no more: each thread keeps as many.
const FLOATS: usize = 640 << 10;

/// Rows of a weight gradient whose partial sums a thread adds up at a time.
const ROWS: usize = 16;

/// Images of one block.
fn images_per_block(g: &ConvGeometry) -> usize {
    let pixels = (g.oh * g.ow).max(1);
    let fitting = FLOATS / (g.c * g.kh * g.kw * pixels).max(1);
    COLUMNS.div_ceil(pixels).min(fitting).clamp(1, g.n.max(1))
}

/// Whether the columns are the input planes themselves.
fn is_pointwise(g: &ConvGeometry) -> bool {
    g.kh == 1 && g.kw == 1 && g.stride == 1 && g.padding == 0
}

/// The output columns `j` whose input column `j stride + v - padding` lies in the image: a range.
fn inside(size: usize, outputs: usize, offset: usize, g: &ConvGeometry) -> std::ops::Range<usize> {
    let first = g.padding.saturating_sub(offset).div_ceil(g.stride);
    let end = (size + g.padding).saturating_sub(offset).div_ceil(g.stride);
    let end = end.min(outputs);
    first.min(end)..end
}

/// Writes the columns `[K, images * OH * OW]` of some images `x`.
fn im2col(g: &ConvGeometry, x: &[f32], columns: &mut [f32]) {
    let (plane, pixels) = (g.h * g.w, g.oh * g.ow);
    let images = x.len() / (g.c * plane);
    let width = images * pixels;
    for (row, line) in columns.chunks_mut(width).enumerate() {
        let (channel, u, v) = (row / (g.kh * g.kw), row / g.kw % g.kh, row % g.kw);
        let inner = inside(g.w, g.ow, v, g);
        for (image, target) in line.chunks_mut(pixels).enumerate() {
            let source = &x[(image * g.c + channel) * plane..][..plane];
            for (i, target) in target.chunks_mut(g.ow).enumerate() {
                let y = i * g.stride + u;
                if y < g.padding || y >= g.h + g.padding || inner.is_empty() {
                    target.fill(0.0);
                    continue;
                }
                let source = &source[(y - g.padding) * g.w..][..g.w];
                target[..inner.start].fill(0.0);
                target[inner.end..].fill(0.0);
                let first = inner.start * g.stride + v - g.padding;
                if g.stride == 1 {
                    target[inner.clone()].copy_from_slice(&source[first..first + inner.len()]);
                } else {
                    let picked = source[first..].iter().step_by(g.stride);
                    target[inner.clone()]
                        .iter_mut()
                        .zip(picked)
                        .for_each(|(t, &s)| *t = s);
                }
            }
        }
    }
}

/// Adds the columns of some images to `dx`: the adjoint of [`im2col`].
fn col2im(g: &ConvGeometry, columns: &[f32], dx: &mut [f32]) {
    let (plane, pixels) = (g.h * g.w, g.oh * g.ow);
    let images = dx.len() / (g.c * plane);
    let width = images * pixels;
    for (row, line) in columns.chunks(width).enumerate() {
        let (channel, u, v) = (row / (g.kh * g.kw), row / g.kw % g.kh, row % g.kw);
        let inner = inside(g.w, g.ow, v, g);
        for (image, source) in line.chunks(pixels).enumerate() {
            let target = &mut dx[(image * g.c + channel) * plane..][..plane];
            for (i, source) in source.chunks(g.ow).enumerate() {
                let y = i * g.stride + u;
                if y < g.padding || y >= g.h + g.padding || inner.is_empty() {
                    continue;
                }
                let target = &mut target[(y - g.padding) * g.w..][..g.w];
                let first = inner.start * g.stride + v - g.padding;
                let touched = target[first..].iter_mut().step_by(g.stride);
                touched
                    .zip(&source[inner.clone()])
                    .for_each(|(t, &s)| *t += s);
            }
        }
    }
}

/// Copies `[images, O, pixels]` into `[O, images * pixels]`.
fn gather(images: &[f32], channels: usize, pixels: usize, rows: &mut [f32]) {
    let width = images.len() / channels;
    for (image, source) in images.chunks(channels * pixels).enumerate() {
        for (channel, plane) in source.chunks(pixels).enumerate() {
            rows[channel * width + image * pixels..][..pixels].copy_from_slice(plane);
        }
    }
}

/// Copies `[O, images * pixels]` into `[images, O, pixels]`.
fn scatter(rows: &[f32], channels: usize, pixels: usize, images: &mut [f32]) {
    let width = images.len() / channels;
    for (image, target) in images.chunks_mut(channels * pixels).enumerate() {
        for (channel, plane) in target.chunks_mut(pixels).enumerate() {
            plane.copy_from_slice(&rows[channel * width + image * pixels..][..pixels]);
        }
    }
}

/// Adds the transpose of the first columns of `from`, whose rows have `from_width` elements, to `to`
/// `[columns, width]`.
fn add_turned(from: &[f32], from_width: usize, to: &mut [f32], width: usize) {
    let columns = to.len() / width.max(1);
    for (row, from) in from.chunks(from_width).take(width).enumerate() {
        for (column, from) in from[..columns].iter().enumerate() {
            to[column * width + row] += from;
        }
    }
}

pub(super) fn conv2d(device: &CpuDevice, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let g = geometry("conv2d", x, w, conv)?;
    let w = read_weight(device, "conv2d", w, x.dtype())?;
    let x = read_activations("conv2d", "x", x)?;
    let y = convolve(device, &g, x.values(), &w, None);
    Ok(device.activations(&g.y_shape(), y))
}

/// The batch norm and its activation change each block of images while it is in a core's cache. f16 is rounded in
/// between, as the two one after the other do, by doing them so.
pub(super) fn conv2d_batch_norm(
    device: &CpuDevice,
    x: &Tensor,
    w: &Tensor,
    conv: Conv2d,
    norm: &ChannelNorm,
    activation: Activation<&Tensor>,
) -> Result<Tensor> {
    let operation = "conv2d_batch_norm";
    let g = geometry(operation, x, w, conv)?;
    shapes::channel_norm(operation, g.o, norm)?;
    if let Some(shortcut) = activation.shortcut() {
        shortcut.expect(operation, "shortcut", &g.y_shape(), x.dtype())?;
    }
    if x.dtype() == DType::F16 {
        return batch_norm(device, &conv2d(device, x, w, conv)?, norm, activation);
    }
    let w = read_weight(device, operation, w, x.dtype())?;
    let x = read_activations(operation, "x", x)?;
    let activation = read_activation(operation, activation)?;
    let activation = activation.as_ref().map(|shortcut| shortcut.values());
    let normalization = Normalization::new(operation, norm, g.oh * g.ow, activation)?;
    let y = convolve(device, &g, x.values(), &w, Some(&normalization));
    Ok(device.activations(&g.y_shape(), y))
}

fn geometry(operation: &'static str, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<ConvGeometry> {
    shapes::conv2d(
        operation,
        x.nchw(operation, "x")?,
        w.nchw(operation, "w")?,
        conv,
    )
}

fn convolve(
    device: &CpuDevice,
    g: &ConvGeometry,
    x: Activations<'_>,
    w: &[f32],
    normalization: Option<&Normalization<'_>>,
) -> NewActivations {
    if !device.without_winograd && winograd::applies(g) {
        return winograd::conv2d(device, g, x, w, normalization);
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let images = images_per_block(g);
    let mut y = device.take_activations(g.n * g.o * pixels, x.dtype());
    let block_len = images * g.o * pixels;
    let of_block = |y: &mut [f32], x: &[f32]| {
        let images = y.len() / (g.o * pixels);
        let width = images * pixels;
        let direct = is_pointwise(g) && images == 1;
        let rows = if images == 1 { 0 } else { g.o * width };
        with_scratch(
            [if direct { 0 } else { k * width }, rows],
            |[columns, rows]| {
                let columns: &[f32] = if direct {
                    x
                } else {
                    im2col(g, x, columns);
                    columns
                };
                let (w, columns) = (View::rows(w, k), View::rows(columns, width));
                if images == 1 {
                    product([g.o, width, k], w, columns, Into::Replace, y, width);
                } else {
                    product([g.o, width, k], w, columns, Into::Replace, rows, width);
                    scatter(rows, g.o, pixels, y);
                }
            },
        );
    };
    y.for_chunks(block_len, |block, y| {
        let start = block * images * input;
        let range = start..start + y.len() / (g.o * pixels) * input;
        x.with(range, |x| of_block(y, x));
        if let Some(normalization) = normalization {
            normalization.apply(block * block_len, y);
        }
    });
    y
}

pub(super) fn conv2d_dx(
    device: &CpuDevice,
    dy: &Tensor,
    w: &Tensor,
    x_shape: [usize; 4],
    conv: Conv2d,
) -> Result<Tensor> {
    let g = shapes::conv2d("conv2d_dx", x_shape, w.nchw("conv2d_dx", "w")?, conv)?;
    dy.expect("conv2d_dx", "dy", &g.y_shape(), dy.dtype())?;
    let w = read_weight(device, "conv2d_dx", w, dy.dtype())?;
    let dy = read_activations("conv2d_dx", "dy", dy)?;
    let dy = dy.values();
    if !device.without_winograd && winograd::applies_to_dx(&g) {
        let dx = winograd::conv2d_dx(device, &g, dy, &w);
        return Ok(device.activations(&x_shape, dx));
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let images = images_per_block(&g);
    let mut dx = device.take_activations(g.n * input, dy.dtype());
    let of_block = |dx: &mut [f32], dy: &[f32]| {
        let images = dx.len() / input;
        let width = images * pixels;
        let direct = is_pointwise(&g) && images == 1;
        let rows = if images == 1 { 0 } else { g.o * width };
        with_scratch(
            [if direct { 0 } else { k * width }, rows],
            |[columns, rows]| {
                let dy: &[f32] = if images == 1 {
                    dy
                } else {
                    gather(dy, g.o, pixels, rows);
                    rows
                };
                let (w, dy) = (View::rows(&w, k).transposed(), View::rows(dy, width));
                if direct {
                    product([k, width, g.o], w, dy, Into::Replace, dx, width);
                } else {
                    product([k, width, g.o], w, dy, Into::Replace, columns, width);
                    if is_pointwise(&g) {
                        scatter(columns, k, pixels, dx);
                    } else {
                        dx.fill(0.0);
                        col2im(&g, columns, dx);
                    }
                }
            },
        );
    };
    dx.for_chunks(images * input, |block, dx| {
        let start = block * images * g.o * pixels;
        let range = start..start + dx.len() / input * g.o * pixels;
        dy.with(range, |dy| of_block(dx, dy));
    });
    Ok(device.activations(&x_shape, dx))
}

pub(super) fn conv2d_dw(
    device: &CpuDevice,
    dy: &Tensor,
    x: &Tensor,
    w_shape: [usize; 4],
    conv: Conv2d,
) -> Result<Tensor> {
    let g = shapes::conv2d("conv2d_dw", x.nchw("conv2d_dw", "x")?, w_shape, conv)?;
    dy.expect("conv2d_dw", "dy", &g.y_shape(), x.dtype())?;
    let (dy, x) = (
        read_activations("conv2d_dw", "dy", dy)?,
        read_activations("conv2d_dw", "x", x)?,
    );
    let (dy, x) = (dy.values(), x.values());
    if !device.without_winograd && winograd::applies_to_dw(&g) {
        return Ok(device.floats(&w_shape, winograd::conv2d_dw(device, &g, dy, x)));
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let group = parallel::images_per_group(g.n, g.o * k);
    let groups = g.n.div_ceil(group).max(1);
    // The product packs its right operand against the grain, so that is the one with fewer rows, where the sums are
    // long enough to pay for turning the result.
    let turned = k > g.o && images_per_block(&g) == 1;
    let mut partials = device.take(groups * g.o * k);
    let of_block = |dw: &mut [f32], dy: &[f32], x: &[f32]| {
        let images = x.len() / input;
        let width = images * pixels;
        let direct = is_pointwise(&g) && images == 1;
        let rows = if images == 1 { 0 } else { g.o * width };
        with_scratch(
            [if direct { 0 } else { k * width }, rows],
            |[columns, rows]| {
                let columns: &[f32] = if direct {
                    x
                } else {
                    im2col(&g, x, columns);
                    columns
                };
                let dy: &[f32] = if images == 1 {
                    dy
                } else {
                    gather(dy, g.o, pixels, rows);
                    rows
                };
                let (dy, columns) = (View::rows(dy, width), View::rows(columns, width));
                if turned {
                    let sizes = [k, g.o, width];
                    product(sizes, columns, dy.transposed(), Into::Add, dw, g.o);
                } else {
                    let sizes = [g.o, k, width];
                    product(sizes, dy, columns.transposed(), Into::Add, dw, k);
                }
            },
        );
    };
    parallel::for_chunks(&mut partials, g.o * k, |i, dw| {
        dw.fill(0.0);
        let end = ((i + 1) * group).min(g.n);
        for first in (i * group..end).step_by(images_per_block(&g)) {
            let images = images_per_block(&g).min(end - first);
            let of = |len: usize| first * len..(first + images) * len;
            x.with(of(input), |x| {
                dy.with(of(g.o * pixels), |dy| of_block(dw, dy, x));
            });
        }
    });
    let mut dw = device.take(g.o * k);
    parallel::for_chunks(&mut dw, ROWS * k, |i, part| {
        let first = i * ROWS;
        part.fill(0.0);
        for partial in partials.chunks(g.o * k) {
            if turned {
                add_turned(&partial[first..], g.o, part, k);
            } else {
                let partial = &partial[first * k..][..part.len()];
                part.iter_mut().zip(partial).for_each(|(sum, &p)| *sum += p);
            }
        }
    });
    Ok(device.floats(&w_shape, dw))
}
