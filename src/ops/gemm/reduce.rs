//! Launches of `shaders/gemm_reduce.wgsl`, which adds the partial sums of split products.

use std::ops::Range;

use crate::device::Gpu;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{
    gemm_reduce_elements as elements, gemm_reduce_vectors as vectors,
};
use crate::error::Result;
use crate::tensor::Tensor;

/// The result of a product, `[m, n]`, and the positions of its elements. The shader has the
/// formula.
pub(crate) struct Target<'a> {
    pub(crate) sizes: [usize; 2],
    pub(crate) c: &'a Tensor,
    /// The elements of `c` that are bound, and those before the first one of the result.
    pub(crate) elements: Range<usize>,
    pub(crate) offset: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) plane: usize,
    pub(crate) image: usize,
    /// Added to every row, and its first element.
    pub(crate) bias: Option<(&'a Tensor, usize)>,
    /// Whether sums are added to `c`, without the bias.
    pub(crate) accumulates: bool,
}

impl Target<'_> {
    /// Whether the result consists of vec4s along its columns.
    pub(crate) fn has_vectors(&self) -> bool {
        let [_, n] = self.sizes;
        let start = self.elements.start;
        let strides = [n, start, self.offset, self.row, self.plane, self.image];
        self.column == 1 && strides.iter().all(|size| size.is_multiple_of(4))
    }

    /// Adds the rows of `partials`, `[splits, m n]`.
    pub(crate) fn sum_splits(&self, gpu: &Gpu, partials: &Tensor) -> Result<()> {
        let [m, n] = self.sizes;
        let (whole, with_bias, width) = if self.has_vectors() {
            (&vectors::REDUCE, &vectors::REDUCE_WITH_BIAS, 4)
        } else {
            (&elements::REDUCE, &elements::REDUCE_WITH_BIAS, 1)
        };
        let kernel = if self.bias.is_some() {
            with_bias
        } else {
            whole
        };
        let mut launch = gpu.launch(kernel).read("partials", partials, ..).write(
            "c",
            self.c,
            self.elements.clone(),
        );
        if let Some((bias, _)) = self.bias {
            launch = launch.read("bias", bias, ..);
        }
        launch.run(|slice| {
            let params = elements::Params {
                n: n / width,
                plane: self.plane / width,
                elements: m * n / width,
                splits: partials.len() / (m * n),
                c_offset: slice.offset("c") + self.offset,
                c_row: self.row,
                c_image: self.image,
                c_column: self.column,
                bias_offset: self.bias.map_or(0, |(_, first)| first),
                accumulate: usize::from(self.accumulates),
            };
            (params, Grid::Invocations(params.elements))
        })
    }
}
