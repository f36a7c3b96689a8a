//! Launches of `shaders/gemm.wgsl` and `shaders/gemm_staged.wgsl`: matrix products and the linear layer.

use super::gemm_pairs::{Lie, Product, Taps};
use super::pack::{Layout, pack};
use super::shaders::{
    gemm_plain, gemm_plain_bias, gemm_staged_bias, gemm_staged_plain, gemm_subgroup8_large,
    gemm_subgroup8_large_bias, gemm_subgroup8_small, gemm_subgroup8_small_bias, gemm_subgroup32,
    gemm_subgroup32_bias,
};
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

/// One variant of a tiled product: its `ROWS` and columns, and how it reads its factors.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) variant: Variant,
    pub(super) entry: &'static EntryPoint,
    pub(super) rows: usize,
    /// Of a workgroup.
    pub(super) columns: usize,
    /// Whether the factors must be packed, padded to whole tiles; where they lie in their tensors otherwise.
    pub(super) packed: bool,
}

impl Tile {
    pub(super) fn packed(
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
            packed: true,
        }
    }

    /// The variants that hand one factor round in a subgroup, of entry points that differ in nothing else.
    pub(super) fn of_subgroups(
        large: &'static EntryPoint,
        small: &'static EntryPoint,
        of_32: &'static EntryPoint,
    ) -> [Tile; 3] {
        [
            (Variant::Subgroup8Large, large, 64, 64),
            (Variant::Subgroup8Small, small, 16, 32),
            (Variant::Subgroup32, of_32, 32, 128),
        ]
        .map(|(variant, entry, rows, columns)| Tile {
            packed: false,
            ..Tile::packed(variant, entry, rows, columns)
        })
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
pub(super) fn tiles(bias: bool) -> [Tile; 5] {
    let [plain, staged, large, small, of_32] = match bias {
        false => [
            &gemm_plain::GEMM,
            &gemm_staged_plain::GEMM,
            &gemm_subgroup8_large::GEMM,
            &gemm_subgroup8_small::GEMM,
            &gemm_subgroup32::GEMM,
        ],
        true => [
            &gemm_plain_bias::GEMM,
            &gemm_staged_bias::GEMM,
            &gemm_subgroup8_large_bias::GEMM,
            &gemm_subgroup8_small_bias::GEMM,
            &gemm_subgroup32_bias::GEMM,
        ],
    };
    let [large, small, of_32] = Tile::of_subgroups(large, small, of_32);
    [
        Tile::packed(Variant::Plain, plain, 8, 512),
        Tile::packed(Variant::Staged, staged, 64, 128),
        large,
        small,
        of_32,
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
    /// What a packed row is padded to; none where the kernel reads the tensor itself.
    tile: Option<usize>,
}

/// A range `(start, count)` of an index.
type Range = (usize, usize);

/// A factor as the kernel reads it, in vec4s where it is packed and in elements otherwise.
struct Bound {
    part: Part,
    /// Before the first element.
    offset: usize,
    /// From a term of the sum to the next.
    term: usize,
    /// From a row of A, or a column of B, to the next; 1 where packed.
    step: usize,
    /// Kept until the kernel is recorded: the pool would hand its buffer to the other factor.
    _packed: Option<Tensor>,
}

impl Bound {
    fn lie(&self) -> Lie {
        Lie {
            offset: self.offset,
            term: self.term,
            step: self.step,
        }
    }
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
        let (start, term, step) = match self.sum_first {
            true => (range.0, self.len, 1),
            false => (terms.0, 1, self.terms),
        };
        let Some(tile) = self.tile else {
            return Ok(Bound {
                part,
                offset: skipped + start,
                term,
                step,
                _packed: None,
            });
        };
        if self.sum_first && self.len.is_multiple_of(tile) && range == (0, self.len) {
            return Ok(Bound {
                part,
                offset: skipped / 4,
                term: self.len / 4,
                step: 1,
                _packed: None,
            });
        }
        let layout = Layout {
            rows: terms.1,
            columns: range.1,
            inner: 1,
            offset: skipped + start,
            outer_stride: term,
            inner_stride: 0,
            column_stride: step,
        };
        let packed = pack(device, operation, (part, DType::F32), layout, tile)?;
        Ok(Bound {
            part: device.whole(operation, self.name, &packed)?,
            offset: 0,
            term: packed.shape()[1] / 4,
            step: 1,
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
        let packed = self.tile.map_or(0, |tile| count.next_multiple_of(tile));
        [own, packed]
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
                let in_pairs = Product {
                    m: range.1,
                    n: column.1,
                    k: term.1,
                    a: left.lie(),
                    b: right.lie(),
                    c_offset,
                    c_stride: n,
                    column: column.0,
                    accumulate: term.0 > 0,
                    bias: bias.is_some(),
                    images: None,
                    run: None,
                    taps: Taps::ONE,
                };
                let in_pairs = match tile.variant {
                    // The kernel has this variant's tile.
                    Variant::Subgroup8Large => in_pairs.in_pairs(device),
                    _ => None,
                };
                let params = gemm_plain::Params {
                    m: range.1 as u32,
                    n: column.1 as u32,
                    k: term.1 as u32,
                    a_offset: left.offset as u32,
                    a_term: left.term as u32,
                    a_row: left.step as u32,
                    b_offset: right.offset as u32,
                    b_term: right.term as u32,
                    b_column: right.step as u32,
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
                match in_pairs {
                    Some((entry, params)) => device.launch(entry, params, &parts, workgroups)?,
                    None => device.launch(tile.entry, params, &parts, workgroups)?,
                }
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
            tile: tile.packed.then_some(tile.rows),
        },
        Factor {
            name: b.0,
            x: b.1,
            sum_first: !options.transpose_b,
            terms: g.k,
            len: g.n,
            tile: tile.packed.then_some(VECTOR),
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
