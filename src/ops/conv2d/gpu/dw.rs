//! Launches of the weight gradient: `shaders/conv2d_dw.wgsl`, `shaders/conv2d_dw_tiled.wgsl` and
//! `shaders/conv2d_dw_rows.wgsl`. A launch processes whole images.

use super::is_product;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{
    conv2d_dw_plain as plain, conv2d_dw_rows as rows, conv2d_dw_tiled_gather_64x64 as gather_64x64,
    conv2d_dw_tiled_gather_64x128 as gather_64x128,
    conv2d_dw_tiled_gather_128x128 as gather_128x128,
    conv2d_dw_tiled_gather_matrix8 as gather_matrix8,
    conv2d_dw_tiled_gather_matrix16 as gather_matrix16,
    conv2d_dw_tiled_vectors_64x64 as vectors_64x64,
    conv2d_dw_tiled_vectors_64x128 as vectors_64x128,
    conv2d_dw_tiled_vectors_128x128 as vectors_128x128,
    conv2d_dw_tiled_vectors_matrix8 as vectors_matrix8,
    conv2d_dw_tiled_vectors_matrix16 as vectors_matrix16,
};
use crate::device::gpu::variants::{MatrixSize, Operation, TileSize, Variant};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::conv2d::{Conv2dDw, ConvGeometry};
use crate::ops::gemm::tiled::{BLOCK, SCRATCH};
use crate::ops::gemm::{Layout, Target, Tile, pack};
use crate::tensor::{DType, Tensor};

/// Number of workgroups that the sums are split for, plain and tiled: enough for a large GPU, such
/// as four tiles for each of 132 multiprocessors.
const PLAIN_WORKGROUPS: usize = 1024;
const TILED_WORKGROUPS: usize = 528;
/// Minimum and maximum number of pixels per split. Below the minimum, adding the partial sums costs
/// more time than the split saves.
const SPLIT_PIXELS: [usize; 2] = [512, 32 * 1024];
/// Whether the three taps of a row of the kernel share a tile of x (`conv2d_dw_rows.wgsl`).
fn shares_rows(g: &ConvGeometry) -> bool {
    let fills_blocks = g.w.is_multiple_of(BLOCK) || [4, 8].contains(&g.w);
    [g.kh, g.kw, g.stride, g.padding] == [3, 3, 1, 1] && fills_blocks
}

/// The variants of the weight gradient. Rows are output channels. Columns are input channels of one
/// tap, but those of the plain variant are taps and input channels. Those on matrices have f16
/// factors.
pub(crate) fn dw_tiles(g: &ConvGeometry, has_f16_factors: bool) -> Vec<Tile> {
    let [small, wide, large, eight, sixteen] = if is_product(g) {
        [
            &vectors_64x64::PARTIAL,
            &vectors_64x128::PARTIAL,
            &vectors_128x128::PARTIAL,
            &vectors_matrix8::PARTIAL,
            &vectors_matrix16::PARTIAL,
        ]
    } else {
        [
            &gather_64x64::PARTIAL,
            &gather_64x128::PARTIAL,
            &gather_128x128::PARTIAL,
            &gather_matrix8::PARTIAL,
            &gather_matrix16::PARTIAL,
        ]
    };
    let mut tiles = vec![
        Tile::new(Variant::Plain, &plain::PARTIAL, [8, 512]),
        Tile::tiled(TileSize::Small, small),
        Tile::tiled(TileSize::Wide, wide),
        Tile::tiled(TileSize::Large, large),
    ];
    if shares_rows(g) {
        tiles[1] = Tile::new(tiles[1].variant, &rows::PARTIAL, [64, 32]);
    }
    if has_f16_factors {
        tiles.push(Tile::matrix(MatrixSize::Eight, eight));
        tiles.push(Tile::matrix(MatrixSize::Sixteen, sixteen));
    }
    tiles
}

/// Columns of a row of the plain kernel, padded to vec4s.
fn plain_columns(g: &ConvGeometry) -> usize {
    g.kh * g.kw * g.c.next_multiple_of(4)
}

/// Elements of the result, padded to whole tiles.
fn padded(g: &ConvGeometry, tile: &Tile) -> usize {
    match tile.variant {
        Variant::Plain => tile.padded([g.o, plain_columns(g)]),
        _ => g.kh * g.kw * tile.padded([g.o, g.c]),
    }
}

impl RunOn<Gpu> for Conv2dDw<'_> {
    fn run(&self, gpu: &Gpu, g: ConvGeometry) -> Result<Tensor> {
        let has_f16_factors = self.x.dtype() == DType::F16 || gpu.rounds_factors();
        let class = g
            .class(Operation::Conv2dDw)
            .with_f16_factors(has_f16_factors);
        let tiles = dw_tiles(&g, has_f16_factors);
        let tile = Tile::choose(gpu, &class, &tiles, |tile| padded(&g, tile));
        let [dy, x] = &tile.factors(gpu, [self.dy, self.x])?;
        let op = Conv2dDw { dy, x, ..*self };
        match tile.variant {
            Variant::Plain => op.run_plain(gpu, &g, &tile),
            _ => op.run_tiled(gpu, &g, &tile),
        }
    }
}

impl Conv2dDw<'_> {
    fn run_tiled(&self, gpu: &Gpu, g: &ConvGeometry, tile: &Tile) -> Result<Tensor> {
        let dw = gpu.result(0, &g.w_shape())?;
        let (pixels, taps) = (g.oh * g.ow, g.kh * g.kw);
        let (x_row, dy_row) = (g.c * g.h * g.w, g.o * pixels);
        let result = g.o * g.c;
        // A workgroup of conv2d_dw_rows.wgsl computes three taps.
        let tiles = tile.workgroups(g.o, g.c)
            * if std::ptr::eq(tile.kernel, &rows::PARTIAL) {
                3
            } else {
                taps
            };
        let slices = gpu.cut_rows(g.n, &[x_row, dy_row], usize::MAX)?;
        // The vectors kernels have planes of one row.
        let [oh, ow] = if is_product(g) {
            [1, pixels]
        } else {
            [g.oh, g.ow]
        };
        for images in &slices {
            let terms = images.len() * pixels;
            let [least, longest] = SPLIT_PIXELS;
            let most = gpu
                .rows_at_once(taps * result)
                .min(SCRATCH / (taps * result))
                .max(1);
            let terms_per_split = terms
                .div_ceil(TILED_WORKGROUPS.div_ceil(tiles))
                .clamp(least, longest)
                .max(terms.div_ceil(most))
                .next_multiple_of(BLOCK);
            let splits = terms.div_ceil(terms_per_split);
            let is_direct = splits == 1 && slices.len() == 1;
            let partials = if is_direct {
                dw.clone()
            } else {
                gpu.floats(&[splits, taps * result])?
            };
            let [to_tap, to_row, to_column] = if is_direct {
                [1, g.c * taps, taps]
            } else {
                [result, g.c, 1]
            };
            gpu.launch(tile.kernel)
                .read("x", self.x, images.start * x_row..images.end * x_row)
                .read("dy", self.dy, images.start * dy_row..images.end * dy_row)
                .write("sums", &partials, ..)
                .run(|slice| {
                    let params = rows::Params {
                        o: g.o,
                        c: g.c,
                        oh,
                        ow,
                        h: g.h,
                        w: g.w,
                        taps,
                        kernel_w: g.kw,
                        stride: g.stride,
                        padding: g.padding,
                        terms,
                        terms_per_split,
                        splits,
                        x_offset: slice.offset("x"),
                        x_last: slice.offset("x") + images.len() * x_row - 1,
                        dy_offset: slice.offset("dy"),
                        dy_last: slice.offset("dy") + images.len() * dy_row - 1,
                        to_split: taps * result,
                        to_tap,
                        to_row,
                        to_column,
                        run_log2: g.w.min(BLOCK).ilog2() as usize,
                    };
                    (params, Grid::Workgroups(tiles * splits))
                })?;
            if !is_direct {
                let to = Target {
                    sizes: [taps, result],
                    c: &dw,
                    elements: 0..dw.len(),
                    offset: 0,
                    row: 1,
                    column: taps,
                    plane: result,
                    image: 0,
                    bias: None,
                    accumulates: images.start > 0,
                };
                to.sum_splits(gpu, &partials)?;
            }
        }
        Ok(dw)
    }

    fn run_plain(&self, gpu: &Gpu, g: &ConvGeometry, tile: &Tile) -> Result<Tensor> {
        let dw = gpu.result(0, &g.w_shape())?;
        let (pixels, input) = (g.oh * g.ow, g.h * g.w);
        let (x_row, dy_row) = (g.c * input, g.o * pixels);
        // Elements of the packed copy of one image, and the maximum number of images per launch.
        let x_copied = g.c.next_multiple_of(4) * input;
        let copied = x_copied.max(g.o.next_multiple_of(tile.rows) * pixels);
        let most = (SCRATCH / copied).max(1);
        let columns = plain_columns(g);
        let result = g.o.next_multiple_of(tile.rows) * columns;
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
            let [rows_per_split, splits] = plain_splits(gpu, g, count, [tiles, result]);
            let partials = &gpu.floats(&[splits, result])?;
            let params = plain::Params {
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
            gpu.launch(&plain::REDUCE)
                .read("sums", partials, ..)
                .write("dw", &dw, ..)
                .run(|_| (params, Grid::Invocations(g.o * columns / 4)))?;
        }
        Ok(dw)
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
fn plain_splits(
    gpu: &Gpu,
    g: &ConvGeometry,
    images: usize,
    [tiles, result]: [usize; 2],
) -> [usize; 2] {
    let most = gpu.rows_at_once(result).min(SCRATCH / result).max(1);
    let rows = images * g.oh;
    let wanted = rows.div_ceil(PLAIN_WORKGROUPS.div_ceil(tiles));
    let [least, longest] = SPLIT_PIXELS.map(|pixels| pixels.div_ceil(g.ow));
    let rows_per_split = wanted.clamp(least, longest).max(rows.div_ceil(most));
    [rows_per_split, rows.div_ceil(rows_per_split)]
}
