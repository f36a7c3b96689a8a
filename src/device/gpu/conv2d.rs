//! Launches of `shaders/conv2d.wgsl`, `shaders/conv2d_staged.wgsl` and `shaders/conv2d_dw.wgsl`: convolution and its
//! two gradients.

use super::GpuDevice;
use super::gemm::Tile;
use super::pack::{Layout, pack};
use super::shaders::{conv2d_dw_plain, conv2d_narrow, conv2d_plain, conv2d_staged};
use crate::device::kernels::Kernels;
use crate::device::shapes::{self, Conv2d, ConvGeometry};
use crate::device::variants::{Operation, ShapeClass, Variant};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The weight gradient's sum is split until there are about this many workgroups: enough to fill a large GPU.
const DW_WORKGROUPS: usize = 1024;
/// Pixels that one split adds up: at least, so that partial sums cost little beside them, and at most.
const DW_PIXELS: [usize; 2] = [512, 32 * 1024];
/// Elements of each scratch tensor of the weight gradient, where one image fits: 64 MiB.
const DW_SCRATCH: usize = 16 << 20;

/// The variants of the forward kernel, for so many channels of the result.
pub(super) fn tiles(output_channels: usize) -> [Tile; 2] {
    let (plain, rows) = match output_channels <= 4 {
        true => (&conv2d_narrow::CONV2D, 4),
        false => (&conv2d_plain::CONV2D, 8),
    };
    [
        Tile::new(Variant::Plain, plain, rows, 512),
        Tile::new(Variant::Staged, &conv2d_staged::CONV2D, 64, 128),
    ]
}

/// The variant of the forward kernel for a result of `rows` channels x `columns` pixels.
fn forward_tile(
    device: &GpuDevice,
    operation: Operation,
    g: &ConvGeometry,
    [rows, columns]: [usize; 2],
) -> Tile {
    let class = ShapeClass::convolution(operation, g);
    device.choose(&class, &tiles(rows), |tile| tile.padded(rows, columns))
}

/// The weight as the forward kernel reads it: packed into vec4s, rounded if the input is f16.
struct Weight {
    x: Tensor,
    /// vec4s from a tap and from a term of the sum to the next.
    tap: usize,
    term: usize,
}

impl Weight {
    /// The weight `[O, C, KH, KW]` for an input of type `dtype` and `tile`, whose rows run along C where `transposed`
    /// and along O otherwise.
    fn bind(
        device: &GpuDevice,
        operation: &'static str,
        (w, dtype): (&Tensor, DType),
        g: &ConvGeometry,
        transposed: bool,
        tile: &Tile,
    ) -> Result<Weight> {
        let taps = g.kh * g.kw;
        let by_o = (g.o, g.c * taps);
        let by_c = (g.c, taps);
        let ((rows, row), (terms, term)) = match transposed {
            false => (by_o, by_c),
            true => (by_c, by_o),
        };
        let w = match dtype {
            DType::F16 => device.cast(w, dtype)?,
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
        let whole = device.whole(operation, "w", &w)?;
        let x = pack(device, operation, (whole, dtype), layout, tile.rows)?;
        let vectors = x.shape()[1] / 4;
        Ok(Weight {
            x,
            tap: terms * vectors,
            term: vectors,
        })
    }
}

pub(super) fn conv2d(device: &GpuDevice, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let g = shapes::conv2d(
        "conv2d",
        x.nchw("conv2d", "x")?,
        w.nchw("conv2d", "w")?,
        conv,
    )?;
    let dtype = x.dtype();
    shapes::activations("conv2d", "x", x)?;
    shapes::floats("conv2d", "w", w)?;
    let y = device.allocate(&g.y_shape(), dtype)?;
    let tile = forward_tile(device, Operation::Conv2d, &g, [g.o, g.n * g.oh * g.ow]);
    let w = Weight::bind(device, "conv2d", (w, dtype), &g, false, &tile)?;
    let (x_row, y_row) = (g.c * g.h * g.w, g.o * g.oh * g.ow);
    for (start, count) in device.row_ranges("conv2d", g.n, &[x_row, y_row], usize::MAX)? {
        let (x, x_offset) = device.part_from("conv2d", "x", x, start * x_row, count * x_row)?;
        let (y, y_offset) = device.part_from("conv2d", "y", &y, start * y_row, count * y_row)?;
        let pixels = count * g.oh * g.ow;
        let workgroups = tile.workgroups(g.o, pixels);
        let w_part = device.whole("conv2d", "w", &w.x)?;
        let params = conv2d_plain::Params {
            pixels: pixels as u32,
            grid_h: g.oh as u32,
            grid_w: g.ow as u32,
            input_channels: g.c as u32,
            input_h: g.h as u32,
            input_w: g.w as u32,
            output_channels: g.o as u32,
            output_h: g.oh as u32,
            output_w: g.ow as u32,
            step: g.stride as u32,
            row: -(g.padding as i32),
            column: -(g.padding as i32),
            direction: 1,
            taps_h: g.kh as u32,
            taps_w: g.kw as u32,
            tap_row: 0,
            tap_column: 0,
            tap_step: 1,
            kernel_w: g.kw as u32,
            out_step: 1,
            out_row: 0,
            out_column: 0,
            w_tap: w.tap as u32,
            w_term: w.term as u32,
            input_offset: x_offset as u32,
            output_offset: y_offset as u32,
        };
        device.launch_for(dtype, tile.entry, params, &[x, w_part, y], workgroups)?;
    }
    Ok(y)
}

/// The pixels of one dimension of dx that have the same remainder by the stride.
struct Phase {
    /// The remainder.
    first: usize,
    /// How many there are.
    count: usize,
    /// The first tap that lands on the stride's grid, and how many do.
    tap: usize,
    taps: usize,
    /// Where the first pixel reads dy with the first tap.
    start: usize,
}

fn phases(size: usize, kernel: usize, conv: Conv2d) -> impl Iterator<Item = Phase> {
    (0..conv.stride.min(size)).map(move |first| {
        let tap = (first + conv.padding) % conv.stride;
        Phase {
            first,
            count: (size - first).div_ceil(conv.stride),
            tap,
            taps: kernel.saturating_sub(tap).div_ceil(conv.stride),
            start: (first + conv.padding) / conv.stride,
        }
    })
}

pub(super) fn conv2d_dx(
    device: &GpuDevice,
    dy: &Tensor,
    w: &Tensor,
    x_shape: [usize; 4],
    conv: Conv2d,
) -> Result<Tensor> {
    let g = shapes::conv2d("conv2d_dx", x_shape, w.nchw("conv2d_dx", "w")?, conv)?;
    let dtype = dy.dtype();
    shapes::activations("conv2d_dx", "dy", dy)?;
    dy.expect("conv2d_dx", "dy", &g.y_shape(), dtype)?;
    shapes::floats("conv2d_dx", "w", w)?;
    let dx = device.allocate(&g.x_shape(), dtype)?;
    let tile = forward_tile(device, Operation::Conv2dDx, &g, [g.c, g.n * g.h * g.w]);
    let w = Weight::bind(device, "conv2d_dx", (w, dtype), &g, true, &tile)?;
    let (dy_row, dx_row) = (g.o * g.oh * g.ow, g.c * g.h * g.w);
    for (start, count) in device.row_ranges("conv2d_dx", g.n, &[dy_row, dx_row], usize::MAX)? {
        let (dy, dy_offset) =
            device.part_from("conv2d_dx", "dy", dy, start * dy_row, count * dy_row)?;
        let (dx, dx_offset) =
            device.part_from("conv2d_dx", "dx", &dx, start * dx_row, count * dx_row)?;
        let w_part = device.whole("conv2d_dx", "w", &w.x)?;
        let parts = [dy, w_part, dx];
        for rows in phases(g.h, g.kh, conv) {
            for columns in phases(g.w, g.kw, conv) {
                let pixels = count * rows.count * columns.count;
                let params = conv2d_plain::Params {
                    pixels: pixels as u32,
                    grid_h: rows.count as u32,
                    grid_w: columns.count as u32,
                    input_channels: g.o as u32,
                    input_h: g.oh as u32,
                    input_w: g.ow as u32,
                    output_channels: g.c as u32,
                    output_h: g.h as u32,
                    output_w: g.w as u32,
                    step: 1,
                    row: rows.start as i32,
                    column: columns.start as i32,
                    direction: -1,
                    taps_h: rows.taps as u32,
                    taps_w: columns.taps as u32,
                    tap_row: rows.tap as u32,
                    tap_column: columns.tap as u32,
                    tap_step: g.stride as u32,
                    kernel_w: g.kw as u32,
                    out_step: g.stride as u32,
                    out_row: rows.first as u32,
                    out_column: columns.first as u32,
                    w_tap: w.tap as u32,
                    w_term: w.term as u32,
                    input_offset: dy_offset as u32,
                    output_offset: dx_offset as u32,
                };
                let workgroups = tile.workgroups(g.c, pixels);
                device.launch_for(dtype, tile.entry, params, &parts, workgroups)?;
            }
        }
    }
    Ok(dx)
}

/// Images `[n, channels, pixels]` of a part of a batch with the channels last.
fn channels_last(offset: usize, [n, channels, pixels]: [usize; 3]) -> Layout {
    Layout {
        rows: n * pixels,
        columns: channels,
        inner: pixels,
        offset,
        outer_stride: channels * pixels,
        inner_stride: 1,
        column_stride: pixels,
    }
}

/// The one variant of the weight gradient's first kernel, whose columns have four elements each.
pub(super) fn dw_tile() -> Tile {
    Tile::new(Variant::Plain, &conv2d_dw_plain::PARTIAL, 8, 128)
}

/// How the rows `(n, i)` of dy are split between workgroups, for partial sums of `result` elements in `tiles` tiles:
/// the rows of a split, and the splits.
fn dw_splits(
    device: &GpuDevice,
    g: &ConvGeometry,
    images: usize,
    [tiles, result]: [usize; 2],
) -> [usize; 2] {
    let limit = (device.context.binding_limit / 4) as usize;
    let most = (limit.min(DW_SCRATCH) / result).max(1);
    let rows = images * g.oh;
    let wanted = rows.div_ceil(DW_WORKGROUPS.div_ceil(tiles));
    let [least, longest] = DW_PIXELS.map(|pixels| pixels.div_ceil(g.ow));
    let rows_per_split = wanted.clamp(least, longest).max(rows.div_ceil(most));
    [rows_per_split, rows.div_ceil(rows_per_split)]
}

pub(super) fn conv2d_dw(
    device: &GpuDevice,
    dy: &Tensor,
    x: &Tensor,
    w_shape: [usize; 4],
    conv: Conv2d,
) -> Result<Tensor> {
    let g = shapes::conv2d("conv2d_dw", x.nchw("conv2d_dw", "x")?, w_shape, conv)?;
    let dtype = x.dtype();
    shapes::activations("conv2d_dw", "x", x)?;
    dy.expect("conv2d_dw", "dy", &g.y_shape(), dtype)?;
    let dw = device.floats(&w_shape)?;
    let tile = dw_tile();
    let (pixels, input) = (g.oh * g.ow, g.h * g.w);
    let (x_row, dy_row) = (g.c * input, g.o * pixels);
    // Elements of an image's copy, and images to be copied at once at most.
    let x_copied = g.c.next_multiple_of(4) * input;
    let copied = x_copied.max(g.o.next_multiple_of(tile.rows) * pixels);
    let most = (DW_SCRATCH / copied).max(1);
    // A column of the kernel is a tap and four channels.
    let columns = g.kh * g.kw * g.c.div_ceil(4);
    let result = g.o.next_multiple_of(tile.rows) * columns * 4;
    let tiles = tile.workgroups(g.o, columns);
    for (start, count) in device.row_ranges("conv2d_dw", g.n, &[x_row, dy_row, copied], most)? {
        let (x, x_offset) = device.part_from("conv2d_dw", "x", x, start * x_row, count * x_row)?;
        let (dy, dy_offset) =
            device.part_from("conv2d_dw", "dy", dy, start * dy_row, count * dy_row)?;
        let layout = channels_last(x_offset, [count, g.c, input]);
        let x = pack(device, "conv2d_dw", (x, dtype), layout, 4)?;
        let layout = channels_last(dy_offset, [count, g.o, pixels]);
        let dy = pack(device, "conv2d_dw", (dy, dtype), layout, tile.rows)?;
        let [rows_per_split, splits] = dw_splits(device, &g, count, [tiles, result]);
        let partials = device.floats(&[splits, result])?;
        let params = conv2d_dw_plain::Params {
            rows: (count * g.oh) as u32,
            rows_per_split: rows_per_split as u32,
            splits: splits as u32,
            oh: g.oh as u32,
            ow: g.ow as u32,
            h: g.h as u32,
            w: g.w as u32,
            c: g.c as u32,
            channel_vectors: g.c.div_ceil(4) as u32,
            o: g.o as u32,
            dy_stride: (dy.shape()[1] / 4) as u32,
            kernel_h: g.kh as u32,
            kernel_w: g.kw as u32,
            stride: g.stride as u32,
            padding: g.padding as u32,
            accumulate: u32::from(start > 0),
        };
        let sums = device.whole("conv2d_dw", "the partial sums", &partials)?;
        let parts = [
            device.whole("conv2d_dw", "x", &x)?,
            device.whole("conv2d_dw", "dy", &dy)?,
            sums.clone(),
        ];
        device.launch_for(dtype, tile.entry, params, &parts, tiles * splits)?;
        let parts = [sums, device.whole("conv2d_dw", "dw", &dw)?];
        let workgroups = (g.o * columns).div_ceil(256);
        device.launch(&conv2d_dw_plain::REDUCE, params, &parts, workgroups)?;
    }
    Ok(dw)
}
