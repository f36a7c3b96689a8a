//! Launches of `shaders/nt_xent.wgsl`, between products of matrices.

use super::copy::copy_elements;
use super::shaders::nt_xent_vec2::{self as vec2, Params};
use super::shaders::nt_xent_vec4 as vec4;
use super::softmax_cross_entropy::mean;
use super::{EntryPoint, GpuDevice, gemm};
use crate::device::kernels::{Gemm, Kernels, RowLoss};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements of the products that are held at a time, where a row of them is not longer: 64 MiB.
const SCRATCH: usize = 16 << 20;

/// The rows of z whose products with all rows are held at a time: the number of the first, and how many.
type Rows = (usize, usize);

/// Ranges that cover z, so that the products of each fit the scratch and a binding.
fn ranges(device: &GpuDevice, operation: &'static str, n: usize) -> Result<Vec<Rows>> {
    let limit = (device.context.binding_limit / 4) as usize;
    device.cut(operation, n, (SCRATCH / n).max(1).min(limit / n), n)
}

/// Products `[rows, n]` of rows of z with all rows.
fn products(device: &GpuDevice, z: &Tensor, (first, count): Rows) -> Result<Tensor> {
    let options = Gemm {
        transpose_b: true,
        ..Gemm::default()
    };
    if count == z.shape()[0] {
        return gemm::gemm(device, options, z, z);
    }
    gemm::gemm(device, options, &device.slice(z, first, count)?, z)
}

fn params(z: &Tensor, (first, count): Rows, temperature: f32) -> Params {
    Params {
        n: z.shape()[0] as u32,
        first_row: first as u32,
        rows: count as u32,
        temperature,
    }
}

/// The entry point that reads rows of `n` products.
fn for_rows_of(
    n: usize,
    vec2: &'static EntryPoint,
    vec4: &'static EntryPoint,
) -> &'static EntryPoint {
    if n.is_multiple_of(4) { vec4 } else { vec2 }
}

pub(super) fn nt_xent(device: &GpuDevice, z: &Tensor, temperature: f32) -> Result<RowLoss> {
    let operation = "nt_xent";
    let [n, _] = shapes::nt_xent(z, temperature)?;
    let (log_sum_exp, losses) = (device.floats(&[n])?, device.floats(&[n])?);
    let entry = for_rows_of(n, &vec2::ROW_LOSSES, &vec4::ROW_LOSSES);
    for rows in ranges(device, operation, n)? {
        let products = products(device, z, rows)?;
        let parts = [
            device.whole(operation, "products", &products)?,
            device.whole(operation, "log_sum_exp", &log_sum_exp)?,
            device.whole(operation, "losses", &losses)?,
        ];
        device.launch(entry, params(z, rows, temperature), &parts, rows.1)?;
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
    let entry = for_rows_of(n, &vec2::WEIGH, &vec4::WEIGH);
    let gradient = |rows: Rows| -> Result<Tensor> {
        let weights = products(device, z, rows)?;
        let parts = [
            device.whole(operation, "weights", &weights)?,
            device.whole(operation, "log_sum_exp", log_sum_exp)?,
            device.whole(operation, "dloss", dloss)?,
        ];
        device.launch(entry, params(z, rows, temperature), &parts, rows.1)?;
        gemm::gemm(device, Gemm::default(), &weights, z)
    };
    let ranges = ranges(device, operation, n)?;
    if let [all] = ranges[..] {
        return gradient(all);
    }
    let dz = device.floats(&[n, d])?;
    for rows in ranges {
        let of_rows = gradient(rows)?;
        copy_elements(
            device,
            operation,
            (&of_rows, 0),
            (&dz, rows.0 * d),
            rows.1 * d,
        )?;
    }
    Ok(dz)
}
