//! The weight gradient. Each step is the transpose of a step of the forward pass.

use super::layout::{
    LANES, Matrices, PANEL, transform_inputs, transform_kernel_gradient, transform_output_gradients,
};
use super::multiply::multiply_transposed;
use super::transforms::KERNEL;
use super::{CHANNELS, Layer, TILES, Transformed, all_inputs, ranges};
use crate::device::cpu::activations::Activations;
use crate::device::cpu::arena::Buffer;
use crate::device::cpu::matmul::Accumulate;
use crate::device::cpu::scratch::with_scratch;
use crate::device::cpu::{Cpu, parallel};
use crate::ops::conv2d::ConvGeometry;

/// Computes `dw [O, C, 3, 3]`.
pub(in crate::ops::conv2d::cpu) fn conv2d_dw(
    cpu: &Cpu,
    g: &ConvGeometry,
    dy: Activations<'_>,
    x: Activations<'_>,
) -> Buffer {
    let layer = Layer::forward(g);
    let mut dw = cpu.allocate(g.o * g.c * KERNEL * KERNEL);
    if layer.splits_images() {
        gradient_by_images(cpu, layer, dy, x, &mut dw);
    } else {
        gradient_by_channels(cpu, layer, dy, x, &mut dw);
    }
    dw
}

/// Accumulates dU in fixed groups of images, and adds the dU of the groups in order.
fn gradient_by_images(
    cpu: &Cpu,
    layer: Layer,
    dy: Activations<'_>,
    x: Activations<'_>,
    dw: &mut [f32],
) {
    let (tiles, per_block) = (layer.tiles(), layer.images_per_block());
    let kernels = Matrices::panels(layer.c, layer.o);
    let group = parallel::images_per_group(layer.n, kernels.len()).next_multiple_of(per_block);
    let groups = layer.n.div_ceil(group);
    let mut partials = cpu.allocate(groups * kernels.len());
    parallel::for_chunks(&mut partials, kernels.len(), |i, du| {
        let end = ((i + 1) * group).min(layer.n);
        for block in (i * group..end).step_by(per_block) {
            let count = per_block.min(end - block);
            let from = layer.input_images(count);
            let to = layer.output_images(count, layer.o);
            let (v, m) = (
                Matrices::whole(TILES, layer.c),
                Matrices::panels(TILES, layer.o),
            );
            with_scratch(
                [from.len(), v.len(), m.len(), to.len()],
                |[pixels, v, dm, outputs]| {
                    from.gather(x, layer.c, [block, 0], pixels);
                    to.gather(dy, layer.o, [block, 0], outputs);
                    for (first, rows) in ranges(count * tiles.per_image()) {
                        let inputs = Matrices::whole(rows, layer.c);
                        let gradients = Matrices::panels(rows, layer.o);
                        let padding = layer.padding;
                        transform_inputs((from, pixels), tiles, padding, first, (inputs, v));
                        transform_output_gradients((to, outputs), tiles, first, (gradients, dm));
                        let accumulate = if block + first == i * group {
                            Accumulate::Overwrite
                        } else {
                            Accumulate::Add
                        };
                        let (v, dm) = ((inputs, &*v), (gradients, &*dm));
                        multiply_transposed(v, dm, accumulate, (kernels, du));
                    }
                },
            );
        }
    });
    let row = LANES * layer.c * KERNEL * KERNEL;
    parallel::for_chunks(dw, row, |i, dw| {
        transform_kernel_gradient((kernels, &partials), i * LANES, dw, layer.c, 0);
    });
}

/// Computes V and dM, then processes blocks of output channels, and in each of them blocks of input
/// channels, whose dU fits the cache.
fn gradient_by_channels(
    cpu: &Cpu,
    layer: Layer,
    dy: Activations<'_>,
    x: Activations<'_>,
    dw: &mut [f32],
) {
    let tiles = layer.tiles();
    let inputs = all_inputs(cpu, layer, x);
    let panel = Matrices::panels(layer.n * tiles.per_image(), PANEL);
    let dy_images = layer.output_images(layer.n, layer.o);
    let gradients = Transformed::new(cpu, dy, dy_images, panel, |pixels, dm| {
        transform_output_gradients(pixels, tiles, 0, dm);
    });
    let part_len = PANEL * layer.c * KERNEL * KERNEL;
    parallel::for_chunks(dw, part_len, |part, dw| {
        let dm = &gradients.values[part * panel.len()..][..panel.len()];
        with_scratch([Matrices::panels(CHANNELS, PANEL).len()], |[du]| {
            for (first, channels, v) in inputs.blocks() {
                let kernels = Matrices::panels(channels, PANEL);
                multiply_transposed(v, (panel, dm), Accumulate::Overwrite, (kernels, du));
                transform_kernel_gradient((kernels, &du[..kernels.len()]), 0, dw, layer.c, first);
            }
        });
    });
}
