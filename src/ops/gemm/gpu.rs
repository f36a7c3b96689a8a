//! Launches of `shaders/gemm.wgsl`, and of the tiled products in `tiled.rs`.
//!
//! If a tensor does not fit a binding, the product is split by the rows of C, then by its columns,
//! then by the terms of the sum. Later terms are accumulated in C.

use std::ops::Range;

use super::tiled::{self, Product};
use super::{Gemm, GemmSizes, Layout, Linear, Target, pack, rounded_if};
use crate::device::gpu::kernels::{gemm_bias, gemm_plain};
use crate::device::gpu::variants::{MatrixSize, Operation, ShapeClass, TileSize, Variant};
use crate::device::gpu::{Grid, Kernel};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// Columns of C in one vec4.
const VECTOR: usize = 4;
/// Maximum number of terms of the sum per dispatch, which keeps dispatches short on slow devices.
const MAX_TERMS: usize = 32 * 1024;

/// A variant of a product.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) variant: Variant,
    pub(crate) kernel: &'static Kernel,
    /// Rows and columns of the result per workgroup.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Tile {
    pub(crate) fn new(
        variant: Variant,
        kernel: &'static Kernel,
        [rows, columns]: [usize; 2],
    ) -> Self {
        Tile {
            variant,
            kernel,
            rows,
            columns,
        }
    }

    pub(crate) fn tiled(size: TileSize, kernel: &'static Kernel) -> Self {
        Tile::new(Variant::Tiled(size), kernel, size.sizes())
    }

    pub(crate) fn matrix(size: MatrixSize, kernel: &'static Kernel) -> Self {
        Tile::new(Variant::Matrix(size), kernel, size.tile())
    }

    /// Elements of a result that is padded to whole tiles.
    pub(crate) fn padded(&self, [rows, columns]: [usize; 2]) -> usize {
        rows.next_multiple_of(self.rows) * columns.next_multiple_of(self.columns)
    }

    pub(crate) fn workgroups(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// The factors as the kernel reads them. If f32 factors are to be rounded to f16, the kernels
    /// on matrices do so.
    pub(crate) fn factors(&self, gpu: &Gpu, factors: [&Tensor; 2]) -> Result<[Tensor; 2]> {
        let rounds = gpu.rounds_factors() && !self.variant.is_on_matrices();
        rounded_if(rounds, factors, |op| gpu.run(op))
    }

    /// The tile that the current variant table selects for `class`, of those that run on the
    /// adapter. `padded` returns the elements of the result, padded to whole tiles.
    pub(crate) fn choose(
        gpu: &Gpu,
        class: &ShapeClass,
        tiles: &[Tile],
        padded: impl Fn(&Tile) -> usize,
    ) -> Tile {
        let tiles: Vec<&Tile> = tiles.iter().filter(|tile| gpu.runs(tile.kernel)).collect();
        let available: Vec<_> = tiles.iter().map(|t| (t.variant, padded(t))).collect();
        let variant = gpu.choose(class, &available);
        let chosen = tiles.iter().find(|tile| tile.variant == variant);
        **chosen.expect("the table selects one of the available variants")
    }
}

/// The variants of a product, or of a product with a bias. Those on matrices have f16 factors.
pub(crate) fn tiles(bias: bool, has_f16_factors: bool) -> Vec<Tile> {
    let plain = if bias {
        &gemm_bias::GEMM
    } else {
        &gemm_plain::GEMM
    };
    let mut tiles = vec![Tile::new(Variant::Plain, plain, [8, 512])];
    tiles.extend(tiled::tiles());
    if has_f16_factors {
        tiles.extend(tiled::matrices());
    }
    tiles
}

/// One factor of a product.
struct Factor<'a> {
    x: &'a Tensor,
    /// Whether the rows of `x` are the terms of the sum. Otherwise its columns are.
    terms_first: bool,
    /// The length of the sum, K.
    terms: usize,
    /// The length of the other index: M or N.
    len: usize,
    /// The multiple to which a packed row is padded; 1 if the factor is never packed.
    tile: usize,
}

/// A factor as the plain kernel reads it, in vec4s.
struct Bound {
    x: Tensor,
    elements: Range<usize>,
    /// Stride between two terms of the sum, in vec4s.
    term: usize,
}

impl Factor<'_> {
    /// The elements that are bound for these terms of the sum and this range of the other index.
    fn elements(&self, terms: &Range<usize>, range: &Range<usize>) -> Range<usize> {
        let (rows, width) = if self.terms_first {
            (terms, self.len)
        } else {
            (range, self.terms)
        };
        rows.start * width..rows.end * width
    }

    /// The part of the factor with these terms of the sum and this range of the other index.
    fn in_place(&self, terms: &Range<usize>, range: &Range<usize>) -> tiled::Factor<'_> {
        let (offset, stride) = if self.terms_first {
            (range.start, self.len)
        } else {
            (terms.start, self.terms)
        };
        tiled::Factor {
            x: self.x,
            elements: self.elements(terms, range),
            offset,
            stride,
            by_terms: self.terms_first,
        }
    }

    /// The part of the factor with these terms of the sum and this range of the other index. It is
    /// packed unless it can be bound as it is.
    fn bind(&self, gpu: &Gpu, terms: &Range<usize>, range: &Range<usize>) -> Result<Bound> {
        let elements = self.elements(terms, range);
        let is_whole = *range == (0..self.len);
        if self.terms_first && is_whole && self.len.is_multiple_of(self.tile) {
            return Ok(Bound {
                x: self.x.clone(),
                elements,
                term: self.len / VECTOR,
            });
        }
        let (offset, term, step) = if self.terms_first {
            (range.start, self.len, 1)
        } else {
            (terms.start, 1, self.terms)
        };
        let layout = Layout {
            rows: terms.len(),
            columns: range.len(),
            inner: 1,
            offset,
            outer_stride: term,
            inner_stride: 0,
            column_stride: step,
        };
        let x = pack(gpu, (self.x, elements), layout, self.tile)?;
        Ok(Bound {
            elements: 0..x.len(),
            term: x.shape()[1] / VECTOR,
            x,
        })
    }

    /// Elements bound per index of C.
    fn per_row(&self) -> usize {
        if self.terms_first { 1 } else { self.terms }
    }

    /// Elements bound per term of the sum if `count` values of the other index are used: of the
    /// stored and of the packed factor.
    fn per_term(&self, count: usize) -> [usize; 2] {
        let stored = if self.terms_first { self.len } else { 1 };
        [stored, count.next_multiple_of(self.tile)]
    }
}

fn product(
    gpu: &Gpu,
    Gemm { a, b }: Gemm<'_>,
    bias: Option<&Tensor>,
    GemmSizes { m, n, k }: GemmSizes,
) -> Result<Tensor> {
    let operation = match bias {
        None => Operation::Gemm,
        Some(_) => Operation::Linear,
    };
    let rounds = gpu.rounds_factors();
    let class = ShapeClass::product(operation, [m, n, k]).with_f16_factors(rounds);
    let tile = Tile::choose(gpu, &class, &tiles(bias.is_some(), rounds), |tile| {
        tile.padded([m, n])
    });
    let is_plain = tile.variant == Variant::Plain;
    let [a_values, b_values] = tile.factors(gpu, [a.x, b.x])?;
    let a = Factor {
        x: &a_values,
        terms_first: a.is_transposed,
        terms: k,
        len: m,
        tile: if is_plain { tile.rows } else { 1 },
    };
    let b = Factor {
        x: &b_values,
        terms_first: !b.is_transposed,
        terms: k,
        len: n,
        tile: if is_plain { VECTOR } else { 1 },
    };

    let c = gpu.result(0, &[m, n])?;
    let rows = gpu.cut_rows(m, &[a.per_row(), n], usize::MAX)?;
    let columns = gpu.cut_rows(n, &[b.per_row(), 1], usize::MAX)?;
    let largest = |ranges: &[Range<usize>]| ranges.first().map_or(0, |range| range.len());
    let per_term = [a.per_term(largest(&rows)), b.per_term(largest(&columns))].concat();
    let mut terms = gpu.cut_rows(k, &per_term, MAX_TERMS)?;
    if terms.is_empty() {
        // A sum without terms is still written.
        terms.push(0..0);
    }
    for row in &rows {
        for column in &columns {
            for term in &terms {
                if !is_plain {
                    let product = Product {
                        a: a.in_place(term, row),
                        b: b.in_place(term, column),
                        b_image: 0,
                        terms: term.len(),
                        to: Target {
                            sizes: [row.len(), column.len()],
                            c: &c,
                            elements: row.start * n..row.end * n,
                            offset: column.start,
                            row: n,
                            column: 1,
                            plane: column.len(),
                            image: 0,
                            bias: bias.map(|bias| (bias, column.start)),
                            accumulates: term.start > 0,
                        },
                    };
                    product.run(gpu, &tile)?;
                    continue;
                }
                let left = a.bind(gpu, term, row)?;
                let right = b.bind(gpu, term, column)?;
                let mut launch = gpu
                    .launch(tile.kernel)
                    .read("a", &left.x, left.elements)
                    .read("b", &right.x, right.elements)
                    .write("c", &c, row.start * n..row.end * n);
                if let Some(bias) = bias {
                    launch = launch.read("bias", bias, ..);
                }
                launch.run(|slice| {
                    let params = gemm_plain::Params {
                        m: row.len(),
                        n: column.len(),
                        k: term.len(),
                        a_offset: slice.offset("a") / VECTOR,
                        a_term: left.term,
                        b_offset: slice.offset("b") / VECTOR,
                        b_term: right.term,
                        c_offset: slice.offset("c"),
                        c_stride: n,
                        column: column.start,
                        accumulate: usize::from(term.start > 0),
                    };
                    let workgroups = tile.workgroups(row.len(), column.len());
                    (params, Grid::Workgroups(workgroups))
                })?;
            }
        }
    }
    Ok(c)
}

impl RunOn<Gpu> for Gemm<'_> {
    fn run(&self, gpu: &Gpu, sizes: GemmSizes) -> Result<Tensor> {
        product(gpu, *self, None, sizes)
    }
}

impl RunOn<Gpu> for Linear<'_> {
    fn run(&self, gpu: &Gpu, sizes: GemmSizes) -> Result<Tensor> {
        product(gpu, self.product(), Some(self.bias), sizes)
    }
}
