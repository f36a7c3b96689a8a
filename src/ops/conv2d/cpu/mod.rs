//! Convolution as a matrix product with columns (im2col): each column holds the inputs of one
//! output pixel. Blocks of whole images are processed one after the other, so that the columns of a
//! block fit the cache of a core. With `K = C KH KW`:
//!
//! - forward: `y [O, pixels] = w [O, K] columns [K, pixels]`
//! - dx: `columns [K, pixels] = w^T dy`; each column is added to the pixels that it was copied from
//! - dw: `dw [O, K] = dy [O, pixels] columns^T`; fixed groups of images have separate partial sums,
//!   which are added in order
//!
//! Wide 3x3 convolutions of stride 1 use Winograd's algorithm (`winograd.rs`) instead.

mod winograd;

use super::{Conv2d, Conv2dBatchNorm, Conv2dDw, Conv2dDx, ConvGeometry};
use crate::device::cpu::activations::{Activations, NewActivations};
use crate::device::cpu::arena::Buffer;
use crate::device::cpu::matmul::{Accumulate, View, matmul};
use crate::device::cpu::parallel;
use crate::device::cpu::scratch::with_scratch;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::batch_norm::cpu::{Normalization, read_activation};
use crate::ops::gemm::rounded_if;
use crate::tensor::{DType, Tensor};

/// Minimum number of columns per block, unless the batch has fewer. Shorter rows slow down the
/// product.
const COLUMNS: usize = 256;

/// Maximum number of floats in the columns of a block, unless one image has more. Each thread keeps
/// scratch memory of this size.
const FLOATS: usize = 640 << 10;

/// Rows of a weight gradient per task that adds partial sums.
const ROWS: usize = 16;

fn images_per_block(g: &ConvGeometry) -> usize {
    let pixels = (g.oh * g.ow).max(1);
    let fitting = FLOATS / (g.c * g.kh * g.kw * pixels).max(1);
    COLUMNS.div_ceil(pixels).min(fitting).clamp(1, g.n.max(1))
}

/// Whether the columns are the input planes themselves.
fn is_pointwise(g: &ConvGeometry) -> bool {
    g.kh == 1 && g.kw == 1 && g.stride == 1 && g.padding == 0
}

/// The range of output columns `j` whose input column `j stride + offset - padding` is in the
/// image.
fn inside(size: usize, outputs: usize, offset: usize, g: &ConvGeometry) -> std::ops::Range<usize> {
    let first = g.padding.saturating_sub(offset).div_ceil(g.stride);
    let end = (size + g.padding).saturating_sub(offset).div_ceil(g.stride);
    let end = end.min(outputs);
    first.min(end)..end
}

/// Writes the columns `[K, images * OH * OW]` of images `x`.
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
                    let source = source[first..].iter().step_by(g.stride);
                    let pairs = target[inner.clone()].iter_mut().zip(source);
                    pairs.for_each(|(t, &s)| *t = s);
                }
            }
        }
    }
}

/// Adds columns to the images `dx`: the adjoint of [`im2col`].
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
                let target = target[first..].iter_mut().step_by(g.stride);
                let pairs = target.zip(&source[inner.clone()]);
                pairs.for_each(|(t, &s)| *t += s);
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

/// Calls `body` with scratch memory for the columns and for `[O, width]` rows of a block of images.
/// A single image needs no rows, and with a pointwise kernel no columns: that scratch memory is
/// then empty.
fn with_block_scratch(g: &ConvGeometry, images: usize, body: impl FnOnce([&mut [f32]; 2])) {
    let width = images * g.oh * g.ow;
    let rows = if images == 1 { 0 } else { g.o * width };
    let columns = if images == 1 && is_pointwise(g) {
        0
    } else {
        g.c * g.kh * g.kw * width
    };
    with_scratch([columns, rows], body);
}

/// The columns of the images `x`, which are `x` itself if `scratch` is empty.
fn columns_of<'a>(g: &ConvGeometry, x: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
    if scratch.is_empty() {
        return x;
    }
    im2col(g, x, scratch);
    scratch
}

/// The rows `[O, width]` of the images `dy`, which are `dy` itself if `scratch` is empty.
fn rows_of<'a>(g: &ConvGeometry, dy: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
    if scratch.is_empty() {
        return dy;
    }
    gather(dy, g.o, g.oh * g.ow, scratch);
    scratch
}

/// Adds the transpose of the first columns of `from`, whose rows have `from_width` elements, to
/// `to [columns, width]`.
fn add_transposed(from: &[f32], from_width: usize, to: &mut [f32], width: usize) {
    let columns = to.len() / width.max(1);
    for (row, from) in from.chunks(from_width).take(width).enumerate() {
        for (column, from) in from[..columns].iter().enumerate() {
            to[column * width + row] += from;
        }
    }
}

/// The factors, rounded if the device rounds them.
fn factors(cpu: &Cpu, factors: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    rounded_if(cpu.rounds_factors(), factors, |cast| cpu.run(cast))
}

impl RunOn<Cpu> for Conv2d<'_> {
    fn run(&self, cpu: &Cpu, g: ConvGeometry) -> Result<Tensor> {
        let [x, w] = &factors(cpu, [self.x, self.w])?;
        let w = cpu.read_weight(w, x.dtype())?;
        let x = cpu.read_activations(x)?;
        let y = convolve(cpu, &g, x.values(), &w, None);
        Ok(cpu.activations(&g.y_shape(), y))
    }
}

impl RunOn<Cpu> for Conv2dBatchNorm<'_> {
    /// Normalises each block of images while it is in the cache of a core. With f16 activations,
    /// the two operations run separately, because the result of the convolution must be rounded in
    /// between.
    fn run(&self, cpu: &Cpu, g: ConvGeometry) -> Result<Tensor> {
        let Conv2d { x, w, .. } = self.conv;
        let (norm, activation) = (self.norm, self.activation);
        if x.dtype() == DType::F16 {
            let x = &cpu.run(self.conv)?;
            return cpu.run(BatchNorm {
                x,
                norm,
                activation,
            });
        }
        let [x, w] = &factors(cpu, [x, w])?;
        let w = cpu.read_weight(w, x.dtype())?;
        let x = cpu.read_activations(x)?;
        let activation = read_activation(cpu, activation)?;
        let activation = activation.as_ref().map(|shortcut| shortcut.values());
        let normalization = Normalization::new(cpu, norm, g.oh * g.ow, activation)?;
        let y = convolve(cpu, &g, x.values(), &w, Some(&normalization));
        Ok(cpu.activations(&g.y_shape(), y))
    }
}

fn convolve(
    cpu: &Cpu,
    g: &ConvGeometry,
    x: Activations<'_>,
    w: &[f32],
    normalization: Option<&Normalization<'_>>,
) -> NewActivations {
    if cpu.uses_winograd() && winograd::applies(g) {
        return winograd::conv2d(cpu, g, x, w, normalization);
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let images = images_per_block(g);
    let mut y = cpu.allocate_activations(g.n * g.o * pixels, x.dtype());
    let block_len = images * g.o * pixels;
    let convolve_block = |y: &mut [f32], x: &[f32]| {
        let images = y.len() / (g.o * pixels);
        let width = images * pixels;
        with_block_scratch(g, images, |[columns, rows]| {
            let columns = View::rows(columns_of(g, x, columns), width);
            let (sizes, w) = ([g.o, width, k], View::rows(w, k));
            if images == 1 {
                matmul(sizes, w, columns, Accumulate::Overwrite, y, width);
            } else {
                matmul(sizes, w, columns, Accumulate::Overwrite, rows, width);
                scatter(rows, g.o, pixels, y);
            }
        });
    };
    y.for_chunks(block_len, |block, y| {
        let start = block * images * input;
        let range = start..start + y.len() / (g.o * pixels) * input;
        x.with(range, |x| convolve_block(y, x));
        if let Some(normalization) = normalization {
            normalization.apply(block * block_len, y);
        }
    });
    y
}

impl RunOn<Cpu> for Conv2dDx<'_> {
    fn run(&self, cpu: &Cpu, g: ConvGeometry) -> Result<Tensor> {
        let [dy, w] = &factors(cpu, [self.dy, self.w])?;
        let w = cpu.read_weight(w, dy.dtype())?;
        let dy = cpu.read_activations(dy)?;
        let dx = input_gradient(cpu, &g, dy.values(), &w);
        Ok(cpu.activations(&g.x_shape(), dx))
    }
}

fn input_gradient(cpu: &Cpu, g: &ConvGeometry, dy: Activations<'_>, w: &[f32]) -> NewActivations {
    if cpu.uses_winograd() && winograd::applies_to_dx(g) {
        return winograd::conv2d_dx(cpu, g, dy, w);
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let images = images_per_block(g);
    let mut dx = cpu.allocate_activations(g.n * input, dy.dtype());
    let block_dx = |dx: &mut [f32], dy: &[f32]| {
        let images = dx.len() / input;
        let width = images * pixels;
        with_block_scratch(g, images, |[columns, rows]| {
            let dy = View::rows(rows_of(g, dy, rows), width);
            let (sizes, w) = ([k, width, g.o], View::rows(w, k).transposed());
            if columns.is_empty() {
                return matmul(sizes, w, dy, Accumulate::Overwrite, dx, width);
            }
            matmul(sizes, w, dy, Accumulate::Overwrite, columns, width);
            if is_pointwise(g) {
                scatter(columns, k, pixels, dx);
            } else {
                dx.fill(0.0);
                col2im(g, columns, dx);
            }
        });
    };
    dx.for_chunks(images * input, |block, dx| {
        let start = block * images * g.o * pixels;
        let range = start..start + dx.len() / input * g.o * pixels;
        dy.with(range, |dy| block_dx(dx, dy));
    });
    dx
}

impl RunOn<Cpu> for Conv2dDw<'_> {
    fn run(&self, cpu: &Cpu, g: ConvGeometry) -> Result<Tensor> {
        let [dy, x] = &factors(cpu, [self.dy, self.x])?;
        let (dy, x) = (cpu.read_activations(dy)?, cpu.read_activations(x)?);
        let dw = weight_gradient(cpu, &g, dy.values(), x.values());
        Ok(cpu.floats(&g.w_shape(), dw))
    }
}

fn weight_gradient(cpu: &Cpu, g: &ConvGeometry, dy: Activations<'_>, x: Activations<'_>) -> Buffer {
    if cpu.uses_winograd() && winograd::applies_to_dw(g) {
        return winograd::conv2d_dw(cpu, g, dy, x);
    }
    let (k, pixels, input) = (g.c * g.kh * g.kw, g.oh * g.ow, g.c * g.h * g.w);
    let group = parallel::images_per_group(g.n, g.o * k);
    let groups = g.n.div_ceil(group).max(1);
    // The product packs a transposed right operand slowly, so the operand with fewer rows goes
    // right. The result is then transposed, which pays off if the sums are long.
    let is_transposed = k > g.o && images_per_block(g) == 1;
    let mut partials = cpu.allocate(groups * g.o * k);
    let add_block_dw = |dw: &mut [f32], dy: &[f32], x: &[f32]| {
        let images = x.len() / input;
        let width = images * pixels;
        with_block_scratch(g, images, |[columns, rows]| {
            let columns = View::rows(columns_of(g, x, columns), width);
            let dy = View::rows(rows_of(g, dy, rows), width);
            if is_transposed {
                let sizes = [k, g.o, width];
                matmul(sizes, columns, dy.transposed(), Accumulate::Add, dw, g.o);
            } else {
                let sizes = [g.o, k, width];
                matmul(sizes, dy, columns.transposed(), Accumulate::Add, dw, k);
            }
        });
    };
    parallel::for_chunks(&mut partials, g.o * k, |i, dw| {
        dw.fill(0.0);
        let end = ((i + 1) * group).min(g.n);
        for first in (i * group..end).step_by(images_per_block(g)) {
            let images = images_per_block(g).min(end - first);
            let range = |len: usize| first * len..(first + images) * len;
            x.with(range(input), |x| {
                dy.with(range(g.o * pixels), |dy| add_block_dw(dw, dy, x));
            });
        }
    });
    let mut dw = cpu.allocate(g.o * k);
    parallel::for_chunks(&mut dw, ROWS * k, |i, part| {
        let first = i * ROWS;
        part.fill(0.0);
        for partial in partials.chunks(g.o * k) {
            if is_transposed {
                add_transposed(&partial[first..], g.o, part, k);
            } else {
                let partial = &partial[first * k..][..part.len()];
                part.iter_mut().zip(partial).for_each(|(sum, &p)| *sum += p);
            }
        }
    });
    dw
}
