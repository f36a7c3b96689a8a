//! Launches of `shaders/gemm.wgsl` and `shaders/gemm_staged.wgsl`: matrix products and the linear layer.

use super::pack::{Layout, pack};
use super::shaders::{gemm_bias, gemm_plain, gemm_staged_bias, gemm_staged_plain};
use super::stream::Part;
use super::{EntryPoint, GpuDevice};
use crate::device::kernels::Gemm;
use crate::device::shapes::{self, GemmGeometry};
use crate::device::variants::{Operation, ShapeClass, Variant};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Columns of C in one vec4.
const VECTOR: usize = 4;
/// Terms of the sum that one dispatch adds up: a dispatch stays short on a small device.
const MAX_TERMS: usize = 32 * 1024;

/// One variant of a tiled product, whose factors are packed and padded to whole tiles.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) variant: Variant,
    pub(super) entry: &'static EntryPoint,
    /// Rows and columns of the result that a workgroup computes.
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Tile {
    pub(super) fn new(
        variant: Variant,
        entry: &'static EntryPoint,
        rows: usize,
        columns: usize,
    ) -> Tile {
        Tile {
            variant,
            entry,
            rows,
            columns,
        }
    }

    /// Elements of a result of `rows` x `columns` in whole tiles.
    pub(super) fn padded(&self, rows: usize, columns: usize) -> usize {
        rows.next_multiple_of(self.rows) * columns.next_multiple_of(self.columns)
    }

    pub(super) fn workgroups(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

/// The variants of a product, and of one with a bias.
pub(super) fn tiles(bias: bool) -> [Tile; 2] {
    let (plain, staged) = if bias {
        (&gemm_bias::GEMM, &gemm_staged_bias::GEMM)
    } else {
        (&gemm_plain::GEMM, &gemm_staged_plain::GEMM)
    };
    [
        Tile::new(Variant::Plain, plain, 8, 512),
        Tile::new(Variant::Staged, staged, 64, 128),
    ]
}

/// One factor of a product.
struct Factor<'a> {
    name: &'static str,
    x: &'a Tensor,
    /// Whether the rows of `x` run along the sum's index; its columns otherwise.
    sum_first: bool,
    /// Length of the sum's index, K.
    terms: usize,
    /// Length of the other index: M or N.
    len: usize,
    /// A packed row is padded to a multiple of this.
    tile: usize,
}

/// A range `(start, count)` of an index.
type Range = (usize, usize);

/// A factor as the kernel reads it, in vec4s.
struct Bound {
    part: Part,
    /// Before the first vec4.
    offset: usize,
    /// From a term of the sum to the next.
    term: usize,
    /// Kept until the kernel is recorded: the pool would hand its buffer to the other factor.
    _packed: Option<Tensor>,
}

impl Factor<'_> {
    /// The factor over ranges of the sum's index and of the other one.
    fn bind(
        &self,
        device: &GpuDevice,
        operation: &'static str,
        terms: Range,
        range: Range,
    ) -> Result<Bound> {
        let (first, len) = match self.sum_first {
            true => (terms, self.len),
            false => (range, self.terms),
        };
        let (part, skipped) =
            device.part_from(operation, self.name, self.x, first.0 * len, first.1 * len)?;
        if self.sum_first && self.len.is_multiple_of(self.tile) && range == (0, self.len) {
            return Ok(Bound {
                part,
                offset: skipped / 4,
                term: self.len / 4,
                _packed: None,
            });
        }
        let (start, term, step) = match self.sum_first {
            true => (range.0, self.len, 1),
            false => (terms.0, 1, self.terms),
        };
        let layout = Layout {
            rows: terms.1,
            columns: range.1,
            inner: 1,
            offset: skipped + start,
            outer_stride: term,
            inner_stride: 0,
            column_stride: step,
        };
        let packed = pack(device, operation, (part, DType::F32), layout, self.tile)?;
        Ok(Bound {
            part: device.whole(operation, self.name, &packed)?,
            offset: 0,
            term: packed.shape()[1] / 4,
            _packed: Some(packed),
        })
    }

    /// Ranges of the index that is not the sum's, in each of which the factor and `other` elements a step of that index
    /// fit a binding.
    fn ranges(
        &self,
        device: &GpuDevice,
        operation: &'static str,
        other: usize,
    ) -> Result<Vec<Range>> {
        let own = if self.sum_first { 1 } else { self.terms };
        device.row_ranges(operation, self.len, &[own, other], usize::MAX)
    }

    /// Elements bound for each term of the sum, where `count` of the other index are taken: stored and packed.
    fn term(&self, count: usize) -> [usize; 2] {
        let own = if self.sum_first { self.len } else { 1 };
        [own, count.next_multiple_of(self.tile)]
    }
}

/// `C = A B (+ bias)`, in parts where a tensor does not fit one binding: C is cut by rows, then B's other index, then
/// the sum, whose later parts are added to C.
fn product(
    device: &GpuDevice,
    operation: &'static str,
    tile: &Tile,
    [a, b]: &[Factor; 2],
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (m, n) = (a.len, b.len);
    let c = device.floats(&[m, n])?;
    let rows = a.ranges(device, operation, n)?;
    let columns = b.ranges(device, operation, 1)?;
    let largest = |ranges: &[Range]| ranges.first().map_or(0, |range| range.1);
    let elements = [a.term(largest(&rows)), b.term(largest(&columns))].concat();
    let mut terms = device.row_ranges(operation, a.terms, &elements, MAX_TERMS)?;
    if terms.is_empty() {
        // A sum of nothing is still written.
        terms.push((0, 0));
    }
    for &range in &rows {
        for &column in &columns {
            for &term in &terms {
                let left = a.bind(device, operation, term, range)?;
                let right = b.bind(device, operation, term, column)?;
                let (c_part, c_offset) =
                    device.part_from(operation, "c", &c, range.0 * n, range.1 * n)?;
                let workgroups = tile.workgroups(range.1, column.1);
                let params = gemm_plain::Params {
                    m: range.1 as u32,
                    n: column.1 as u32,
                    k: term.1 as u32,
                    a_offset: left.offset as u32,
                    a_term: left.term as u32,
                    b_offset: right.offset as u32,
                    b_term: right.term as u32,
                    c_offset: c_offset as u32,
                    c_stride: n as u32,
                    column: column.0 as u32,
                    accumulate: u32::from(term.0 > 0),
                };
                let mut parts = vec![left.part, right.part];
                if let Some(bias) = bias {
                    parts.push(device.whole(operation, "bias", bias)?);
                }
                parts.push(c_part);
                device.launch(tile.entry, params, &parts, workgroups)?;
            }
        }
    }
    Ok(c)
}

fn factors<'a>(
    tile: &Tile,
    options: Gemm,
    g: GemmGeometry,
    a: (&'static str, &'a Tensor),
    b: (&'static str, &'a Tensor),
) -> [Factor<'a>; 2] {
    [
        Factor {
            name: a.0,
            x: a.1,
            sum_first: options.transpose_a,
            terms: g.k,
            len: g.m,
            tile: tile.rows,
        },
        Factor {
            name: b.0,
            x: b.1,
            sum_first: !options.transpose_b,
            terms: g.k,
            len: g.n,
            tile: VECTOR,
        },
    ]
}

pub(super) fn gemm(device: &GpuDevice, options: Gemm, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    shapes::floats("gemm", "a", a)?;
    shapes::floats("gemm", "b", b)?;
    let g = shapes::gemm(options, a, b)?;
    let class = ShapeClass::product(Operation::Gemm, [g.m, g.n, g.k]);
    let tile = device.choose(&class, &tiles(false), |tile| tile.padded(g.m, g.n));
    let factors = factors(&tile, options, g, ("a", a), ("b", b));
    product(device, "gemm", &tile, &factors, None)
}

pub(super) fn linear(device: &GpuDevice, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let [outputs, _] = w.matrix("linear", "w")?;
    shapes::floats("linear", "x", x)?;
    shapes::floats("linear", "w", w)?;
    bias.expect("linear", "bias", &[outputs], DType::F32)?;
    let options = Gemm {
        transpose_a: false,
        transpose_b: true,
    };
    let g = shapes::gemm(options, x, w)?;
    let class = ShapeClass::product(Operation::Linear, [g.m, g.n, g.k]);
    let tile = device.choose(&class, &tiles(true), |tile| tile.padded(g.m, g.n));
    let factors = factors(&tile, options, g, ("x", x), ("w", w));
    product(device, "linear", &tile, &factors, Some(bias))
}
