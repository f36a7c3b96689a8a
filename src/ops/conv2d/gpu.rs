//! Launches of `shaders/conv2d.wgsl`, `shaders/conv2d_staged.wgsl` and `shaders/conv2d_dw.wgsl`. A
//! launch processes whole images.

use super::{Conv2d, Conv2dBatchNorm, Conv2dDw, Conv2dDx, Conv2dOptions, ConvGeometry};
use crate::device::gpu::kernels::{
    conv2d_dw_plain, conv2d_narrow, conv2d_plain as plain, conv2d_staged,
};
use crate::device::gpu::variants::{Operation, Variant};
use crate::device::gpu::{Grid, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::cast::Cast;
use crate::ops::gemm::{Layout, Tile, pack};
use crate::tensor::{DType, Tensor};

/// Number of workgroups that the sums of the weight gradient are split for: enough for a large GPU.
const DW_WORKGROUPS: usize = 1024;
/// Minimum and maximum number of pixels per split. Below the minimum, adding the partial sums costs
/// more time than the split saves.
const DW_PIXELS: [usize; 2] = [512, 32 * 1024];
/// Maximum elements of each scratch tensor of the weight gradient, unless one image has more: 64
/// MiB.
const DW_SCRATCH: usize = 16 << 20;

/// The variants of the forward kernel for this number of output channels.
pub(crate) fn tiles(output_channels: usize) -> [Tile; 2] {
    let (kernel, rows) = if output_channels <= 4 {
        (&conv2d_narrow::CONV2D, 4)
    } else {
        (&plain::CONV2D, 8)
    };
    [
        Tile {
            variant: Variant::Plain,
            kernel,
            rows,
            columns: 512,
        },
        Tile {
            variant: Variant::Staged,
            kernel: &conv2d_staged::CONV2D,
            rows: 64,
            columns: 128,
        },
    ]
}

/// The only variant of the first kernel of the weight gradient. Each column has four elements.
pub(crate) fn dw_tile() -> Tile {
    Tile {
        variant: Variant::Plain,
        kernel: &conv2d_dw_plain::PARTIAL,
        rows: 8,
        columns: 128,
    }
}

/// The variant of the forward kernel for a result with `sizes`, channels and pixels.
fn forward_tile(gpu: &Gpu, operation: Operation, g: &ConvGeometry, sizes: [usize; 2]) -> Tile {
    Tile::choose(gpu, &g.class(operation), &tiles(sizes[0]), sizes)
}

/// The weight in the layout of the forward kernel: packed into vec4s, and rounded if the input is
/// f16.
struct Weight {
    x: Tensor,
    /// Strides between two taps and between two terms of the sum, in vec4s.
    tap: usize,
    term: usize,
}

impl Weight {
    /// Packs the weight `[O, C, KH, KW]` for an input of type `dtype`. The result of the kernel has
    /// C channels if `is_transposed`, otherwise O.
    fn pack(
        gpu: &Gpu,
        (w, dtype): (&Tensor, DType),
        g: &ConvGeometry,
        is_transposed: bool,
        tile: &Tile,
    ) -> Result<Weight> {
        let taps = g.kh * g.kw;
        let (by_o, by_c) = ((g.o, g.c * taps), (g.c, taps));
        let ((rows, row), (terms, term)) = if is_transposed {
            (by_c, by_o)
        } else {
            (by_o, by_c)
        };
        let w = match dtype {
            DType::F16 => gpu.run(Cast { x: w, dtype })?,
            _ => w.clone(),
        };
        let layout = Layout {
            rows: taps * terms,
            columns: rows,
            inner: terms,
            offset: 0,
            outer_stride: 1,
            inner_stride: term,
            column_stride: row,
        };
        let x = pack(gpu, (&w, 0..w.len()), layout, tile.rows)?;
        let vectors = x.shape()[1] / 4;
        Ok(Weight {
            x,
            tap: terms * vectors,
            term: vectors,
        })
    }
}

impl RunOn<Gpu> for Conv2d<'_> {
    fn run(&self, gpu: &Gpu, g: ConvGeometry) -> Result<Tensor> {
        let (dtype, pixels) = (self.x.dtype(), g.oh * g.ow);
        let y = gpu.allocate(&g.y_shape(), dtype)?;
        let tile = forward_tile(gpu, Operation::Conv2d, &g, [g.o, g.n * pixels]);
        let w = Weight::pack(gpu, (self.w, dtype), &g, false, &tile)?;
        gpu.launch(tile.kernel)
            .rows(g.n)
            .read("input", self.x, g.c * g.h * g.w)
            .read("w", &w.x, ..)
            .write("output", &y, g.o * pixels)
            .run(|slice| {
                let params = plain::Params {
                    pixels: slice.rows * pixels,
                    grid_h: g.oh,
                    grid_w: g.ow,
                    input_channels: g.c,
                    input_h: g.h,
                    input_w: g.w,
                    output_channels: g.o,
                    output_h: g.oh,
                    output_w: g.ow,
                    step: g.stride,
                    row: -(g.padding as i32),
                    column: -(g.padding as i32),
                    direction: 1,
                    taps_h: g.kh,
                    taps_w: g.kw,
                    tap_row: 0,
                    tap_column: 0,
                    tap_step: 1,
                    kernel_w: g.kw,
                    out_step: 1,
                    out_row: 0,
                    out_column: 0,
                    w_tap: w.tap,
                    w_term: w.term,
                    input_offset: slice.offset("input"),
                    output_offset: slice.offset("output"),
                };
                let workgroups = tile.workgroups(g.o, slice.rows * pixels);
                (params, Grid::Workgroups(workgroups))
            })?;
        Ok(y)
    }
}

impl RunOn<Gpu> for Conv2dBatchNorm<'_> {
    fn run(&self, gpu: &Gpu, _: ConvGeometry) -> Result<Tensor> {
        gpu.run(BatchNorm {
            x: &gpu.run(self.conv)?,
            norm: self.norm,
            activation: self.activation,
        })
    }
}

/// The pixels along one dimension of dx that have the same remainder modulo the stride. They are
/// computed from the same taps of the kernel.
struct Phase {
    /// The remainder.
    first: usize,
    /// The number of pixels.
    count: usize,
    /// The first tap that contributes to these pixels, and the number of such taps.
    tap: usize,
    taps: usize,
    /// The index in dy that the first tap reads for the first pixel.
    start: usize,
}

fn phases(size: usize, kernel: usize, options: Conv2dOptions) -> impl Iterator<Item = Phase> {
    let Conv2dOptions { stride, padding } = options;
    (0..stride.min(size)).map(move |first| {
        let tap = (first + padding) % stride;
        Phase {
            first,
            count: (size - first).div_ceil(stride),
            tap,
            taps: kernel.saturating_sub(tap).div_ceil(stride),
            start: (first + padding) / stride,
        }
    })
}

impl RunOn<Gpu> for Conv2dDx<'_> {
    fn run(&self, gpu: &Gpu, g: ConvGeometry) -> Result<Tensor> {
        let dtype = self.dy.dtype();
        let dx = gpu.allocate(&g.x_shape(), dtype)?;
        let tile = forward_tile(gpu, Operation::Conv2dDx, &g, [g.c, g.n * g.h * g.w]);
        let w = Weight::pack(gpu, (self.w, dtype), &g, true, &tile)?;
        for rows in phases(g.h, g.kh, self.options) {
            for columns in phases(g.w, g.kw, self.options) {
                let params = |slice: &Slice<'_>| {
                    let pixels = slice.rows * rows.count * columns.count;
                    let params = plain::Params {
                        pixels,
                        grid_h: rows.count,
                        grid_w: columns.count,
                        input_channels: g.o,
                        input_h: g.oh,
                        input_w: g.ow,
                        output_channels: g.c,
                        output_h: g.h,
                        output_w: g.w,
                        step: 1,
                        row: rows.start as i32,
                        column: columns.start as i32,
                        direction: -1,
                        taps_h: rows.taps,
                        taps_w: columns.taps,
                        tap_row: rows.tap,
                        tap_column: columns.tap,
                        tap_step: g.stride,
                        kernel_w: g.kw,
                        out_step: g.stride,
                        out_row: rows.first,
                        out_column: columns.first,
                        w_tap: w.tap,
                        w_term: w.term,
                        input_offset: slice.offset("input"),
                        output_offset: slice.offset("output"),
                    };
                    (params, Grid::Workgroups(tile.workgroups(g.c, pixels)))
                };
                gpu.launch(tile.kernel)
                    .rows(g.n)
                    .read("input", self.dy, g.o * g.oh * g.ow)
                    .read("w", &w.x, ..)
                    .write("output", &dx, g.c * g.h * g.w)
                    .run(params)?;
            }
        }
        Ok(dx)
    }
}

/// The layout that moves the channels of images `[n, channels, pixels]` last.
fn channels_last([n, channels, pixels]: [usize; 3]) -> Layout {
    Layout {
        rows: n * pixels,
        columns: channels,
        inner: pixels,
        offset: 0,
        outer_stride: channels * pixels,
        inner_stride: 1,
        column_stride: pixels,
    }
}

/// The split of the rows of dy in all images: the rows per split, and the number of splits. Each
/// split has partial sums of `result` elements in `tiles` tiles.
fn dw_splits(
    gpu: &Gpu,
    g: &ConvGeometry,
    images: usize,
    [tiles, result]: [usize; 2],
) -> [usize; 2] {
    let most = gpu.rows_at_once(result).min(DW_SCRATCH / result).max(1);
    let rows = images * g.oh;
    let wanted = rows.div_ceil(DW_WORKGROUPS.div_ceil(tiles));
    let [least, longest] = DW_PIXELS.map(|pixels| pixels.div_ceil(g.ow));
    let rows_per_split = wanted.clamp(least, longest).max(rows.div_ceil(most));
    [rows_per_split, rows.div_ceil(rows_per_split)]
}

impl RunOn<Gpu> for Conv2dDw<'_> {
    fn run(&self, gpu: &Gpu, g: ConvGeometry) -> Result<Tensor> {
        let dw = gpu.floats(&g.w_shape())?;
        let tile = dw_tile();
        let (pixels, input) = (g.oh * g.ow, g.h * g.w);
        let (x_row, dy_row) = (g.c * input, g.o * pixels);
        // Elements of the packed copy of one image, and the maximum number of images per launch.
        let x_copied = g.c.next_multiple_of(4) * input;
        let copied = x_copied.max(g.o.next_multiple_of(tile.rows) * pixels);
        let most = (DW_SCRATCH / copied).max(1);
        // A column is one tap of four channels.
        let columns = g.kh * g.kw * g.c.div_ceil(4);
        let result = g.o.next_multiple_of(tile.rows) * columns * 4;
        let tiles = tile.workgroups(g.o, columns);
        for images in gpu.cut_rows(g.n, &[x_row, dy_row, copied], most)? {
            let count = images.len();
            let range = |row: usize| images.start * row..images.end * row;
            let x = &pack(
                gpu,
                (self.x, range(x_row)),
                channels_last([count, g.c, input]),
                4,
            )?;
            let dy = &pack(
                gpu,
                (self.dy, range(dy_row)),
                channels_last([count, g.o, pixels]),
                tile.rows,
            )?;
            let [rows_per_split, splits] = dw_splits(gpu, &g, count, [tiles, result]);
            let partials = &gpu.floats(&[splits, result])?;
            let params = conv2d_dw_plain::Params {
                rows: count * g.oh,
                rows_per_split,
                splits,
                oh: g.oh,
                ow: g.ow,
                h: g.h,
                w: g.w,
                c: g.c,
                channel_vectors: g.c.div_ceil(4),
                o: g.o,
                dy_stride: dy.shape()[1] / 4,
                kernel_h: g.kh,
                kernel_w: g.kw,
                stride: g.stride,
                padding: g.padding,
                accumulate: usize::from(images.start > 0),
            };
            gpu.launch(tile.kernel)
                .read("x", x, ..)
                .read("dy", dy, ..)
                .write("partials", partials, ..)
                .run(|_| (params, Grid::Workgroups(tiles * splits)))?;
            gpu.launch(&conv2d_dw_plain::REDUCE)
                .read("sums", partials, ..)
                .write("dw", &dw, ..)
                .run(|_| (params, Grid::Invocations(g.o * columns)))?;
        }
        Ok(dw)
    }
}
