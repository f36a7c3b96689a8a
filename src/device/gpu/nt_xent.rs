//! Launches of `shaders/nt_xent.wgsl`.

use super::pack::{Layout, pack};
use super::shaders::nt_xent_rows8::{self as kernels, Params};
use super::softmax_cross_entropy::mean;
use super::{GpuDevice, Part};
use crate::device::kernels::RowLoss;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Rows of z of a workgroup: the shader's `ROWS`.
const ROWS: usize = 8;

/// Some rows of z, packed for the kernels.
struct Rows {
    first: usize,
    count: usize,
    /// `[d, count]`, the rows padded to whole tiles.
    transposed: Tensor,
}

/// Rows of z as they are, padded to whole vec4s.
fn padded(device: &GpuDevice, operation: &'static str, z: &Tensor, rows: &Rows) -> Result<Tensor> {
    let d = z.shape()[1];
    let (part, offset) = device.part_from(operation, "z", z, rows.first * d, rows.count * d)?;
    let layout = Layout {
        rows: rows.count,
        columns: d,
        inner: rows.count,
        offset,
        outer_stride: 1,
        inner_stride: d,
        column_stride: 1,
    };
    pack(device, operation, (part, DType::F32), layout, 4)
}

/// z in ranges of rows whose packed forms fit a binding.
fn ranges(device: &GpuDevice, operation: &'static str, z: &Tensor) -> Result<Vec<Rows>> {
    let [n, d] = [z.shape()[0], z.shape()[1]];
    let limit = (device.context.binding_limit / 4) as usize;
    // Rows are padded to whole tiles, and d to whole vec4s.
    let fitting = (limit / d.next_multiple_of(4)).saturating_sub(64) / ROWS * ROWS;
    let all = n.next_multiple_of(ROWS) * d.next_multiple_of(4) <= limit;
    let count = if all { n } else { fitting };
    let needed = (64 + ROWS) * d.next_multiple_of(4);
    device
        .cut(operation, n, count, needed)?
        .into_iter()
        .map(|(first, count)| {
            let (part, offset) = device.part_from(operation, "z", z, first * d, count * d)?;
            let layout = Layout {
                rows: d,
                columns: count,
                inner: d,
                offset,
                outer_stride: 1,
                inner_stride: 1,
                column_stride: d,
            };
            Ok(Rows {
                first,
                count,
                transposed: pack(device, operation, (part, DType::F32), layout, ROWS)?,
            })
        })
        .collect()
}

/// What the kernels are told of a range of rows against a range of columns.
fn params(z: &Tensor, rows: &Rows, columns: &Rows, temperature: f32) -> Params {
    Params {
        n: z.shape()[0] as u32,
        d: z.shape()[1] as u32,
        first_row: rows.first as u32,
        rows: rows.count as u32,
        first_column: columns.first as u32,
        columns: columns.count as u32,
        left_stride: (rows.transposed.shape()[1] / 4) as u32,
        right_stride: (columns.transposed.shape()[1] / 4) as u32,
        row_stride: z.shape()[1].div_ceil(4) as u32,
        dz_offset: 0,
        accumulate: u32::from(columns.first > 0),
        temperature,
    }
}

pub(super) fn nt_xent(device: &GpuDevice, z: &Tensor, temperature: f32) -> Result<RowLoss> {
    let operation = "nt_xent";
    let [n, _] = shapes::nt_xent(z, temperature)?;
    let (log_sum_exp, losses) = (device.floats(&[n])?, device.floats(&[n])?);
    let whole = |x: &Tensor| -> Result<Part> { device.whole(operation, "z", x) };
    let ranges = ranges(device, operation, z)?;
    for rows in &ranges {
        let state = device.floats(&[rows.count, 4])?;
        for columns in &ranges {
            let parts = [
                whole(&rows.transposed)?,
                whole(&columns.transposed)?,
                whole(&state)?,
            ];
            let params = params(z, rows, columns, temperature);
            let workgroups = rows.count.div_ceil(ROWS);
            device.launch(&kernels::PARTIAL_SUMS, params, &parts, workgroups)?;
        }
        let parts = [whole(&state)?, whole(&log_sum_exp)?, whole(&losses)?];
        let params = params(z, rows, rows, temperature);
        let workgroups = rows.count.div_ceil(256);
        device.launch(&kernels::ROW_LOSSES, params, &parts, workgroups)?;
    }
    Ok(RowLoss {
        loss: mean(device, &losses)?,
        log_sum_exp,
    })
}

pub(super) fn nt_xent_backward(
    device: &GpuDevice,
    dloss: &Tensor,
    z: &Tensor,
    temperature: f32,
    forward: &RowLoss,
) -> Result<Tensor> {
    let operation = "nt_xent_backward";
    let [n, d] = shapes::nt_xent(z, temperature)?;
    dloss.expect(operation, "dloss", &[1], DType::F32)?;
    let log_sum_exp = &forward.log_sum_exp;
    log_sum_exp.expect(operation, "log_sum_exp", &[n], DType::F32)?;
    let dz = device.floats(&[n, d])?;
    let whole = |x: &Tensor| -> Result<Part> { device.whole(operation, "z", x) };
    let ranges = ranges(device, operation, z)?;
    for columns in &ranges {
        let column_rows = padded(device, operation, z, columns)?;
        for rows in &ranges {
            let (dz, offset) =
                device.part_from(operation, "dz", &dz, rows.first * d, rows.count * d)?;
            let parts = [
                whole(&rows.transposed)?,
                whole(&columns.transposed)?,
                whole(&column_rows)?,
                device.whole(operation, "log_sum_exp", log_sum_exp)?,
                device.whole(operation, "dloss", dloss)?,
                dz,
            ];
            let params = Params {
                dz_offset: offset as u32,
                ..params(z, rows, columns, temperature)
            };
            let workgroups = rows.count.div_ceil(ROWS);
            device.launch(&kernels::GRADIENT, params, &parts, workgroups)?;
        }
    }
    Ok(dz)
}
