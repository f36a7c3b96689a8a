//! Launches of `shaders/pack.wgsl`: operands laid out for the products that follow.

use super::GpuDevice;
use super::shaders::pack::{self as kernels, Params};
use super::stream::Part;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Where the elements of a packed matrix stand in its source; see the shader for the formula.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) inner: usize,
    pub(super) offset: usize,
    pub(super) outer_stride: usize,
    pub(super) inner_stride: usize,
    pub(super) column_stride: usize,
}

/// A new tensor `[rows, columns]` of `source`, which holds `dtype`, with the columns padded by zeros to a multiple of
/// `tile` (itself a multiple of 4).
pub(super) fn pack(
    device: &GpuDevice,
    operation: &'static str,
    (source, dtype): (Part, DType),
    layout: Layout,
    tile: usize,
) -> Result<Tensor> {
    let width = layout.columns.next_multiple_of(tile);
    let packed = device.allocate(&[layout.rows, width], dtype)?;
    let params = Params {
        rows: layout.rows as u32,
        columns: layout.columns as u32,
        vectors: (width / 4) as u32,
        inner: layout.inner as u32,
        offset: layout.offset as u32,
        outer_stride: layout.outer_stride as u32,
        inner_stride: layout.inner_stride as u32,
        column_stride: layout.column_stride as u32,
    };
    let workgroups = layout.rows.div_ceil(32) * (width / 4).div_ceil(8);
    let parts = [source, device.whole(operation, "packed", &packed)?];
    device.launch_for(dtype, &kernels::PACK, params, &parts, workgroups)?;
    Ok(packed)
}
