//! Launches of `shaders/gemm_tiled.wgsl`, for products and for convolutions of 1x1.

use std::ops::Range;

use super::{Target, Tile};
use crate::device::Gpu;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{
    Kernel, gemm_tiled_elements_64x64 as elements_64x64,
    gemm_tiled_elements_64x128 as elements_64x128, gemm_tiled_elements_128x128 as elements_128x128,
    gemm_tiled_matrix8_elements as matrix8_elements, gemm_tiled_matrix8_vectors as matrix8_vectors,
    gemm_tiled_matrix16_elements as matrix16_elements,
    gemm_tiled_matrix16_vectors as matrix16_vectors, gemm_tiled_vectors_64x64 as vectors_64x64,
    gemm_tiled_vectors_64x128 as vectors_64x128, gemm_tiled_vectors_128x128 as vectors_128x128,
};
use crate::device::gpu::variants::{MatrixSize, TileSize, Variant};
use crate::error::Result;
use crate::tensor::Tensor;

/// Number of workgroups from which the terms of a sum are not split: two for each of 132
/// multiprocessors.
const WORKGROUPS: usize = 264;
/// Minimum number of terms per split. Below it, adding the partial sums costs more time than the
/// split saves.
const SPLIT_TERMS: usize = 128;
/// Terms per block of a tiled kernel.
pub(crate) const BLOCK: usize = 16;
/// Maximum elements of partial sums: 64 MiB.
pub(crate) const SCRATCH: usize = 16 << 20;

/// The terms per split, and the number of splits, of sums of `terms` terms in `tiles` workgroups.
/// Each split has `result` partial sums.
pub(crate) fn splits(gpu: &Gpu, terms: usize, [tiles, result]: [usize; 2]) -> [usize; 2] {
    let most = gpu.rows_at_once(result).min(SCRATCH / result.max(1)).max(1);
    let per_split = terms
        .div_ceil(WORKGROUPS.div_ceil(tiles.max(1)))
        .max(SPLIT_TERMS)
        .max(terms.div_ceil(most))
        .next_multiple_of(BLOCK);
    [per_split, terms.div_ceil(per_split).max(1)]
}

/// The tiled variants.
pub(crate) fn tiles() -> [Tile; 3] {
    [
        Tile::tiled(TileSize::Small, &vectors_64x64::GEMM),
        Tile::tiled(TileSize::Wide, &vectors_64x128::GEMM),
        Tile::tiled(TileSize::Large, &vectors_128x128::GEMM),
    ]
}

/// The variants on matrices.
pub(crate) fn matrices() -> [Tile; 2] {
    [
        Tile::matrix(MatrixSize::Eight, &matrix8_vectors::GEMM),
        Tile::matrix(MatrixSize::Sixteen, &matrix16_vectors::GEMM),
    ]
}

/// A factor of a product, in place.
pub(crate) struct Factor<'a> {
    pub(crate) x: &'a Tensor,
    /// The elements of `x` that are bound, and those before the first one of the factor.
    pub(crate) elements: Range<usize>,
    pub(crate) offset: usize,
    /// Elements per line.
    pub(crate) stride: usize,
    /// Whether a line has the elements of one term of the sum. Otherwise it has the terms of one
    /// row or column of the result.
    pub(crate) by_terms: bool,
}

impl Factor<'_> {
    fn has_vectors(&self) -> bool {
        let sizes = [self.elements.start, self.offset, self.stride];
        sizes.iter().all(|size| size.is_multiple_of(4))
    }
}

/// The product of two factors. The shader has the formulas.
pub(crate) struct Product<'a> {
    pub(crate) a: Factor<'a>,
    pub(crate) b: Factor<'a>,
    /// Elements per image of `b`.
    pub(crate) b_image: usize,
    /// The number of terms of the sum.
    pub(crate) terms: usize,
    pub(crate) to: Target<'a>,
}

impl Product<'_> {
    /// Computes the product in such tiles, which are not those of the plain variant.
    pub(crate) fn run(&self, gpu: &Gpu, tile: &Tile) -> Result<()> {
        let (a, b, to) = (&self.a, &self.b, &self.to);
        let [m, n] = to.sizes;
        let tiles = tile.workgroups(m, n);
        let [terms_per_split, splits] = splits(gpu, self.terms, [tiles, m * n]);
        let has_vectors = a.has_vectors() && b.has_vectors() && to.has_vectors();
        let has_vectors = has_vectors && self.b_image.is_multiple_of(4);
        let [whole, of_split, with_bias] = kernels(tile.variant, has_vectors);
        let partials = match splits {
            1 => None,
            _ => Some(gpu.floats(&[splits, m * n])?),
        };
        let launch = match (&partials, to.bias) {
            (Some(partials), _) => gpu.launch(of_split).write("partials", partials, ..),
            (None, None) => gpu.launch(whole).write("c", to.c, to.elements.clone()),
            (None, Some((bias, _))) => {
                gpu.launch(with_bias)
                    .read("bias", bias, ..)
                    .write("c", to.c, to.elements.clone())
            }
        };
        let launch = launch
            .read("a", a.x, a.elements.clone())
            .read("b", b.x, b.elements.clone());
        launch.run(|slice| {
            let c_offset = match partials {
                Some(_) => 0,
                None => slice.offset("c") + to.offset,
            };
            let params = vectors_64x64::Params {
                m,
                n,
                k: self.terms,
                terms_per_split,
                splits,
                a_offset: slice.offset("a") + a.offset,
                a_stride: a.stride,
                a_by_terms: usize::from(a.by_terms),
                b_offset: slice.offset("b") + b.offset,
                b_stride: b.stride,
                b_by_terms: usize::from(b.by_terms),
                b_image: self.b_image,
                plane: to.plane,
                c_offset,
                c_row: to.row,
                c_image: to.image,
                bias_offset: to.bias.map_or(0, |(_, first)| first),
                accumulate: usize::from(to.accumulates),
            };
            (params, Grid::Workgroups(tiles * splits))
        })?;
        match &partials {
            Some(partials) => to.sum_splits(gpu, partials),
            None => Ok(()),
        }
    }
}

/// The kernels for a whole sum, for a split of it, and for a whole sum with a bias. Plain has other
/// ones.
fn kernels(variant: Variant, has_vectors: bool) -> [&'static Kernel; 3] {
    macro_rules! of {
        ($module:ident) => {
            [
                &$module::GEMM,
                &$module::GEMM_OF_SPLIT,
                &$module::GEMM_WITH_BIAS,
            ]
        };
    }
    let small = || {
        if has_vectors {
            of!(vectors_64x64)
        } else {
            of!(elements_64x64)
        }
    };
    match (variant, has_vectors) {
        (Variant::Plain | Variant::Tiled(TileSize::Small), _) => small(),
        (Variant::Tiled(TileSize::Wide), false) => of!(elements_64x128),
        (Variant::Tiled(TileSize::Wide), true) => of!(vectors_64x128),
        (Variant::Tiled(TileSize::Large), false) => of!(elements_128x128),
        (Variant::Tiled(TileSize::Large), true) => of!(vectors_128x128),
        (Variant::Matrix(MatrixSize::Eight), false) => of!(matrix8_elements),
        (Variant::Matrix(MatrixSize::Eight), true) => of!(matrix8_vectors),
        (Variant::Matrix(MatrixSize::Sixteen), false) => of!(matrix16_elements),
        (Variant::Matrix(MatrixSize::Sixteen), true) => of!(matrix16_vectors),
    }
}
