//! The forward pass, and the input gradient, which is a forward pass on dy.

use super::layout::{Kernel, Matrices, PANEL, transform_inputs, transform_outputs};
use super::multiply::multiply;
use super::{CHANNELS, Layer, TILES, all_inputs, ranges};
use crate::device::cpu::activations::{Activations, NewActivations};
use crate::device::cpu::matmul::Accumulate;
use crate::device::cpu::scratch::with_scratch;
use crate::device::cpu::{Cpu, parallel};
use crate::ops::batch_norm::cpu::Normalization;
use crate::ops::conv2d::ConvGeometry;

/// Computes `y [n, O, OH, OW]` and applies the normalisation, if there is one.
pub(in crate::ops::conv2d::cpu) fn conv2d(
    cpu: &Cpu,
    g: &ConvGeometry,
    x: Activations<'_>,
    w: &[f32],
    normalization: Option<&Normalization<'_>>,
) -> NewActivations {
    convolve(
        cpu,
        Layer::forward(g),
        x,
        kernel(g, w, false),
        normalization,
    )
}

/// Computes `dx [n, C, H, W]`.
pub(in crate::ops::conv2d::cpu) fn conv2d_dx(
    cpu: &Cpu,
    g: &ConvGeometry,
    dy: Activations<'_>,
    w: &[f32],
) -> NewActivations {
    convolve(cpu, Layer::input_gradient(g), dy, kernel(g, w, true), None)
}

fn kernel<'a>(g: &ConvGeometry, w: &'a [f32], is_rotated: bool) -> Kernel<'a> {
    let (c, o) = (g.c, g.o);
    Kernel {
        w,
        c,
        o,
        is_rotated,
    }
}

fn convolve(
    cpu: &Cpu,
    layer: Layer,
    x: Activations<'_>,
    kernel: Kernel<'_>,
    normalization: Option<&Normalization<'_>>,
) -> NewActivations {
    let mut y = cpu.allocate_activations(layer.n * layer.output_len(), x.dtype());
    let finish = |start: usize, y: &mut [f32]| {
        if let Some(normalization) = normalization {
            normalization.apply(start, y);
        }
    };
    if layer.splits_images() {
        convolve_by_images(cpu, layer, x, kernel, &mut y, finish);
    } else {
        convolve_by_channels(cpu, layer, x, kernel, &mut y, finish);
    }
    y
}

/// Transforms the kernels, then processes blocks of images. Calls `finish` with the index of the
/// first element and the elements of each block of results.
fn convolve_by_images(
    cpu: &Cpu,
    layer: Layer,
    x: Activations<'_>,
    kernel: Kernel<'_>,
    y: &mut NewActivations,
    finish: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let tiles = layer.tiles();
    let kernels = Matrices::panels(layer.c, layer.o);
    let mut u = cpu.allocate(kernels.len());
    let panel = Matrices::panels(layer.c, PANEL);
    parallel::for_chunks(&mut u, panel.len(), |i, u| {
        kernel.transform(i * PANEL, 0, (panel, u));
    });
    let block_len = layer.images_per_block() * layer.output_len();
    y.for_chunks(block_len, |block, y| {
        let count = y.len() / layer.output_len();
        let (from, to) = (
            layer.input_images(count),
            layer.output_images(count, layer.o),
        );
        let (v, m) = (
            Matrices::whole(TILES, layer.c),
            Matrices::panels(TILES, layer.o),
        );
        with_scratch(
            [from.len(), v.len(), m.len(), to.len()],
            |[pixels, v, m, outputs]| {
                let first = block * layer.images_per_block();
                from.gather(x, layer.c, [first, 0], pixels);
                for (first, rows) in ranges(count * tiles.per_image()) {
                    let inputs = Matrices::whole(rows, layer.c);
                    let products = Matrices::panels(rows, layer.o);
                    transform_inputs((from, pixels), tiles, layer.padding, first, (inputs, v));
                    multiply(
                        (inputs, v),
                        (kernels, &u),
                        Accumulate::Overwrite,
                        (products, m),
                    );
                    transform_outputs((products, m), tiles, first, (to, outputs));
                }
                for (image, y) in y.chunks_mut(layer.output_len()).enumerate() {
                    to.scatter(image, outputs, y);
                }
            },
        );
        finish(block * block_len, y);
    });
}

/// Transforms the inputs, then processes blocks of output channels. Calls `finish` for each image.
fn convolve_by_channels(
    cpu: &Cpu,
    layer: Layer,
    x: Activations<'_>,
    kernel: Kernel<'_>,
    y: &mut NewActivations,
    finish: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let tiles = layer.tiles();
    let inputs = all_inputs(cpu, layer, x);
    let to = layer.output_images(layer.n, PANEL);
    let kernels = Matrices::panels(CHANNELS, PANEL);
    let products = Matrices::panels(layer.n * tiles.per_image(), PANEL);
    let block_len = PANEL * layer.output[0] * layer.output[1];
    let part_len = layer.n * block_len;
    // `[block of channels, n, channel of the block, pixels]`
    let mut parts = cpu.allocate(layer.o.div_ceil(PANEL) * part_len);
    parallel::for_chunks(&mut parts, part_len, |part, y| {
        with_scratch(
            [kernels.len(), products.len(), to.len()],
            |[u, m, outputs]| {
                for (first, channels, v) in inputs.blocks() {
                    let kernels = Matrices::panels(channels, PANEL);
                    kernel.transform(part * PANEL, first, (kernels, u));
                    let accumulate = match first {
                        0 => Accumulate::Overwrite,
                        _ => Accumulate::Add,
                    };
                    multiply(v, (kernels, u), accumulate, (products, m));
                }
                transform_outputs((products, m), tiles, 0, (to, outputs));
                for (image, y) in y.chunks_mut(block_len).enumerate() {
                    to.scatter(image, outputs, y);
                }
            },
        );
    });
    y.for_chunks(layer.output_len(), |image, y| {
        for (part, y) in y.chunks_mut(block_len).enumerate() {
            let from = part * part_len + image * block_len;
            y.copy_from_slice(&parts[from..][..y.len()]);
        }
        finish(image * layer.output_len(), y);
    });
}
