//! Launches of `shaders/conv2d.wgsl`, of `shaders/conv2d_tiled.wgsl`, and of
//! `shaders/gemm_tiled.wgsl` for kernels of 1x1. A launch processes whole images.

mod dw;

pub(crate) use dw::dw_tiles;

use super::weights::packed_copy;
use super::{Conv2d, Conv2dBatchNorm, Conv2dDx, Conv2dOptions, ConvGeometry};
use crate::device::gpu::kernels::{
    conv2d_narrow as narrow, conv2d_plain as plain, conv2d_tiled_64x64 as tiled_64x64,
    conv2d_tiled_64x128 as tiled_64x128, conv2d_tiled_128x128 as tiled_128x128,
    conv2d_tiled_matrix8 as matrix8, conv2d_tiled_matrix16 as matrix16,
};
use crate::device::gpu::variants::{MatrixSize, Operation, TileSize, Variant};
use crate::device::gpu::{Grid, Kernel};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::cast::Cast;
use crate::ops::gemm::tiled::{BLOCK, Factor, Product, splits};
use crate::ops::gemm::{Layout, Target, Tile, pack};
use crate::tensor::{DType, Tensor};

/// Minimum number of input channels of the tiled variants. A block of 16 would be mostly padding
/// for fewer, such as the three of a stem.
const TILED_CHANNELS: usize = 8;
/// Maximum height and width of a kernel of the tiled variants, which have a bit for each row and
/// column.
const TILED_KERNEL: usize = 16;

/// Whether the convolution is a matrix product of the weight and each image, in whole vec4s.
fn is_product(g: &ConvGeometry) -> bool {
    [g.kh, g.kw, g.stride, g.padding] == [1, 1, 1, 0] && (g.h * g.w).is_multiple_of(4)
}

/// The variants of the forward kernel for a result of `rows` channels, which is a sum over `terms`
/// channels. Those on matrices have f16 factors.
pub(crate) fn tiles(
    g: &ConvGeometry,
    [rows, terms]: [usize; 2],
    has_f16_factors: bool,
) -> Vec<Tile> {
    let mut tiles = vec![if rows <= 4 {
        Tile::new(Variant::Plain, &narrow::CONV2D, [4, 512])
    } else {
        Tile::new(Variant::Plain, &plain::CONV2D, [8, 512])
    }];
    if terms >= TILED_CHANNELS && g.kh.max(g.kw) <= TILED_KERNEL {
        for size in TileSize::ALL {
            tiles.push(Tile::tiled(size, tiled_kernel(size)));
        }
        if has_f16_factors {
            tiles.push(Tile::matrix(MatrixSize::Eight, &matrix8::CONV2D));
            tiles.push(Tile::matrix(MatrixSize::Sixteen, &matrix16::CONV2D));
        }
    }
    tiles
}

fn tiled_kernel(size: TileSize) -> &'static Kernel {
    match size {
        TileSize::Small => &tiled_64x64::CONV2D,
        TileSize::Wide => &tiled_64x128::CONV2D,
        TileSize::Large => &tiled_128x128::CONV2D,
    }
}

/// The kernel for a split of a sum. Plain has none.
fn kernel_of_split(variant: Variant) -> &'static Kernel {
    match variant {
        Variant::Plain | Variant::Tiled(TileSize::Small) => &tiled_64x64::CONV2D_OF_SPLIT,
        Variant::Tiled(TileSize::Wide) => &tiled_64x128::CONV2D_OF_SPLIT,
        Variant::Tiled(TileSize::Large) => &tiled_128x128::CONV2D_OF_SPLIT,
        Variant::Matrix(MatrixSize::Eight) => &matrix8::CONV2D_OF_SPLIT,
        Variant::Matrix(MatrixSize::Sixteen) => &matrix16::CONV2D_OF_SPLIT,
    }
}

/// A forward pass, or the gradient of the input, with the variant that the table selects.
struct Call<'a> {
    gpu: &'a Gpu,
    g: &'a ConvGeometry,
    tile: Tile,
    input: Tensor,
    output: &'a Tensor,
    w: Weight,
}

/// The weight as the kernels read it.
struct Weight {
    x: Tensor,
    /// Elements between two taps, and per line of one tap.
    tap: usize,
    line: usize,
    /// Whether a line has the weights of one input channel of the kernel; see `conv2d_tiled.wgsl`.
    by_terms: bool,
}

impl<'a> Call<'a> {
    /// `is_dx` selects the gradient of the input.
    fn new(
        gpu: &'a Gpu,
        g: &'a ConvGeometry,
        [input, w, output]: [&'a Tensor; 3],
        is_dx: bool,
    ) -> Result<Self> {
        let (operation, pixels) = if is_dx {
            (Operation::Conv2dDx, g.h * g.w)
        } else {
            (Operation::Conv2d, g.oh * g.ow)
        };
        let [rows, terms] = if is_dx { [g.c, g.o] } else { [g.o, g.c] };
        let dtype = input.dtype();
        let has_f16_factors = dtype == DType::F16 || gpu.rounds_factors();
        let class = g.class(operation).with_f16_factors(has_f16_factors);
        let tiles = tiles(g, [rows, terms], has_f16_factors);
        let tile = Tile::choose(gpu, &class, &tiles, |tile| {
            tile.padded([rows, g.n * pixels])
        });
        let is_plain = tile.variant == Variant::Plain;
        let packed = if is_plain {
            None
        } else {
            packed_copy(gpu, w, dtype)?
        };
        if let Some(packed) = packed {
            let [input, x] = match dtype {
                DType::F16 => [input.clone(), packed],
                _ => tile.factors(gpu, [input, &packed])?,
            };
            let w = Weight {
                x,
                tap: if g.kh * g.kw == 1 { 0 } else { g.o * g.c },
                line: g.c,
                by_terms: is_dx,
            };
            return Ok(Call {
                gpu,
                g,
                tile,
                input,
                output,
                w,
            });
        }
        // The weight is rounded to f16 by a store, since a driver may leave out a conversion to f16
        // and back.
        let [input, w] = match dtype {
            DType::F16 => [input.clone(), gpu.run(Cast { x: w, dtype })?],
            _ => tile.factors(gpu, [input, w])?,
        };
        let w = if is_plain {
            Weight::pack(gpu, &w, g, is_dx, tile.rows)?
        } else if g.kh * g.kw == 1 && g.c.is_multiple_of(4) {
            Weight {
                x: w,
                tap: 0,
                line: g.c,
                by_terms: is_dx,
            }
        } else {
            Weight::pack(gpu, &w, g, is_dx, 4)?
        };
        Ok(Call {
            gpu,
            g,
            tile,
            input,
            output,
            w,
        })
    }

    /// Records the kernel with `params`, which lack the number of pixels and the positions in the
    /// bindings.
    fn run(&self, params: plain::Params) -> Result<()> {
        match self.tile.variant {
            Variant::Plain => self.run_plain(&params),
            _ if is_product(self.g) => self.run_product(&params),
            _ => self.run_tiled(&params),
        }
    }

    fn run_plain(&self, params: &plain::Params) -> Result<()> {
        let [input, output] = rows(params);
        let grid = params.grid_h * params.grid_w;
        self.gpu
            .launch(self.tile.kernel)
            .rows(self.g.n)
            .read("input", &self.input, input)
            .read("w", &self.w.x, ..)
            .write("output", self.output, output)
            .run(|slice| {
                let params = plain::Params {
                    pixels: slice.rows * grid,
                    w_tap: self.w.tap / 4,
                    w_term: self.w.line / 4,
                    input_offset: slice.offset("input"),
                    output_offset: slice.offset("output"),
                    ..*params
                };
                let workgroups = self.tile.workgroups(params.output_channels, params.pixels);
                (params, Grid::Workgroups(workgroups))
            })
    }

    fn run_tiled(&self, params: &plain::Params) -> Result<()> {
        let (gpu, p) = (self.gpu, params);
        let [input, output] = rows(p);
        let (grid, plane) = (p.grid_h * p.grid_w, p.output_h * p.output_w);
        let taps = p.taps_h * p.taps_w;
        for images in gpu.cut_rows(self.g.n, &[input, output], usize::MAX)? {
            let pixels = images.len() * grid;
            let tiles = self.tile.workgroups(p.output_channels, pixels);
            let result = p.output_channels * pixels;
            // Partial sums are added to whole planes.
            let channels_per_split = if p.out_step == 1 {
                let [terms, _] = splits(gpu, p.input_channels * taps, [tiles, result]);
                terms.div_ceil(taps).next_multiple_of(BLOCK)
            } else {
                p.input_channels
            };
            let splits = p.input_channels.div_ceil(channels_per_split);
            let partials = match splits {
                1 => None,
                _ => Some(gpu.floats(&[splits, result])?),
            };
            let to = Target {
                sizes: [p.output_channels, pixels],
                c: self.output,
                elements: images.start * output..images.end * output,
                offset: 0,
                row: plane,
                column: 1,
                plane,
                image: output,
                bias: None,
                accumulates: false,
            };
            let launch = match &partials {
                Some(partials) => {
                    gpu.launch(kernel_of_split(self.tile.variant))
                        .write("partials", partials, ..)
                }
                None => gpu
                    .launch(self.tile.kernel)
                    .write("output", to.c, to.elements.clone()),
            };
            launch
                .read(
                    "input",
                    &self.input,
                    images.start * input..images.end * input,
                )
                .read("w", &self.w.x, ..)
                .run(|slice| {
                    let output_offset = match partials {
                        Some(_) => 0,
                        None => slice.offset("output"),
                    };
                    let params = tiled_64x64::Params {
                        pixels,
                        grid_h: p.grid_h,
                        grid_w: p.grid_w,
                        input_channels: p.input_channels,
                        input_h: p.input_h,
                        input_w: p.input_w,
                        output_channels: p.output_channels,
                        output_h: p.output_h,
                        output_w: p.output_w,
                        step: p.step,
                        row: p.row,
                        column: p.column,
                        direction: p.direction,
                        taps_h: p.taps_h,
                        taps_w: p.taps_w,
                        tap_row: p.tap_row,
                        tap_column: p.tap_column,
                        tap_step: p.tap_step,
                        kernel_w: p.kernel_w,
                        out_step: p.out_step,
                        out_row: p.out_row,
                        out_column: p.out_column,
                        input_offset: slice.offset("input"),
                        output_offset,
                        w_tap: self.w.tap,
                        a_stride: self.w.line,
                        a_by_terms: usize::from(self.w.by_terms),
                        channels_per_split,
                        splits,
                    };
                    (params, Grid::Workgroups(tiles * splits))
                })?;
            if let Some(partials) = &partials {
                to.sum_splits(gpu, partials)?;
            }
        }
        Ok(())
    }

    /// The product of the weight and the planes of each image.
    fn run_product(&self, params: &plain::Params) -> Result<()> {
        let [input, output] = rows(params);
        let plane = self.g.h * self.g.w;
        for images in self.gpu.cut_rows(self.g.n, &[input, output], usize::MAX)? {
            let product = Product {
                a: Factor {
                    x: &self.w.x,
                    elements: 0..self.w.x.len(),
                    offset: 0,
                    stride: self.w.line,
                    by_terms: self.w.by_terms,
                },
                b: Factor {
                    x: &self.input,
                    elements: images.start * input..images.end * input,
                    offset: 0,
                    stride: plane,
                    by_terms: true,
                },
                b_image: input,
                terms: params.input_channels,
                to: Target {
                    sizes: [params.output_channels, images.len() * plane],
                    c: self.output,
                    elements: images.start * output..images.end * output,
                    offset: 0,
                    row: plane,
                    column: 1,
                    plane,
                    image: output,
                    bias: None,
                    accumulates: false,
                },
            };
            product.run(self.gpu, &self.tile)?;
        }
        Ok(())
    }
}

/// Elements of one image of the input and of the output of the kernel.
fn rows(params: &plain::Params) -> [usize; 2] {
    [
        params.input_channels * params.input_h * params.input_w,
        params.output_channels * params.output_h * params.output_w,
    ]
}

impl Weight {
    /// Packs the weight `[O, C, KH, KW]` into `[KH, KW, C, O]`, or `[KH, KW, O, C]` for dx. The
    /// rows are padded to a multiple of `tile`.
    fn pack(gpu: &Gpu, w: &Tensor, g: &ConvGeometry, is_dx: bool, tile: usize) -> Result<Weight> {
        let taps = g.kh * g.kw;
        let (by_o, by_c) = ((g.o, g.c * taps), (g.c, taps));
        let ((rows, row), (terms, term)) = if is_dx { (by_c, by_o) } else { (by_o, by_c) };
        let layout = Layout {
            rows: taps * terms,
            columns: rows,
            inner: terms,
            offset: 0,
            outer_stride: 1,
            inner_stride: term,
            column_stride: row,
        };
        let x = pack(gpu, (w, 0..w.len()), layout, tile)?;
        let line = x.shape()[1];
        Ok(Weight {
            x,
            tap: terms * line,
            line,
            by_terms: true,
        })
    }
}

impl RunOn<Gpu> for Conv2d<'_> {
    fn run(&self, gpu: &Gpu, g: ConvGeometry) -> Result<Tensor> {
        let y = gpu.allocate(&g.y_shape(), self.x.dtype())?;
        let call = Call::new(gpu, &g, [self.x, self.w, &y], false)?;
        call.run(plain::Params {
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
            tap_step: 1,
            kernel_w: g.kw,
            out_step: 1,
            ..plain::Params::default()
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
        let [rows, columns] = [(g.h, g.kh), (g.w, g.kw)]
            .map(|(size, kernel)| phases(size, kernel, self.options).collect::<Vec<_>>());
        // Pixels that meet no tap are 0, and need no kernel.
        let dx = if rows.iter().chain(&columns).any(|phase| phase.taps == 0) {
            gpu.zeros(&g.x_shape(), self.dy.dtype())?
        } else {
            gpu.allocate(&g.x_shape(), self.dy.dtype())?
        };
        let call = Call::new(gpu, &g, [self.dy, self.w, &dx], true)?;
        for rows in rows.iter().filter(|phase| phase.taps > 0) {
            for columns in columns.iter().filter(|phase| phase.taps > 0) {
                call.run(plain::Params {
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
                    ..plain::Params::default()
                })?;
            }
        }
        Ok(dx)
    }
}
