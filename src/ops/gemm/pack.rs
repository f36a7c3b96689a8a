//! Launches of `shaders/gemm_pack.wgsl`, which lays out operands for the products that follow.

use std::ops::Range;

use crate::device::Gpu;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::gemm_pack::{PACK, Params};
use crate::error::Result;
use crate::tensor::Tensor;

/// Positions in the source of the elements of a packed matrix. The shader has the formula.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) inner: usize,
    pub(crate) offset: usize,
    pub(crate) outer_stride: usize,
    pub(crate) inner_stride: usize,
    pub(crate) column_stride: usize,
}

/// Packs elements of `source` into a new tensor `[rows, columns]`. The columns are padded with
/// zeros to a multiple of `tile`, which is a multiple of 4. `layout` is relative to the start of
/// `range`.
pub(crate) fn pack(
    gpu: &Gpu,
    (source, range): (&Tensor, Range<usize>),
    layout: Layout,
    tile: usize,
) -> Result<Tensor> {
    let width = layout.columns.next_multiple_of(tile);
    let packed = gpu.allocate(&[layout.rows, width], source.dtype())?;
    gpu.launch(&PACK)
        .read("source", source, range)
        .write("packed", &packed, ..)
        .run(|slice| {
            let params = Params {
                rows: layout.rows,
                columns: layout.columns,
                vectors: width / 4,
                inner: layout.inner,
                offset: slice.offset("source") + layout.offset,
                outer_stride: layout.outer_stride,
                inner_stride: layout.inner_stride,
                column_stride: layout.column_stride,
            };
            let workgroups = layout.rows.div_ceil(32) * (width / 4).div_ceil(8);
            (params, Grid::Workgroups(workgroups))
        })?;
    Ok(packed)
}
