//! Launches of `shaders/l2_normalize.wgsl`.

use super::GpuDevice;
use super::shaders::l2_normalize::{self as kernels, Params};
use crate::device::kernels::Normalized;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

fn params(rows: usize, columns: usize, offset: usize, row_offset: usize, eps: f32) -> Params {
    Params {
        rows: rows as u32,
        columns: columns as u32,
        offset: offset as u32,
        row_offset: row_offset as u32,
        eps,
    }
}

pub(super) fn l2_normalize(device: &GpuDevice, x: &Tensor, eps: f32) -> Result<Normalized> {
    let operation = "l2_normalize";
    shapes::floats(operation, "x", x)?;
    let [n, d] = x.matrix(operation, "x")?;
    let (y, norm) = (device.floats(&[n, d])?, device.floats(&[n])?);
    for (start, count) in device.row_ranges(operation, n, &[d, 1], usize::MAX)? {
        let (from, offset) = device.part_from(operation, "x", x, start * d, count * d)?;
        let (to, _) = device.part_from(operation, "y", &y, start * d, count * d)?;
        let (lengths, row_offset) = device.part_from(operation, "norm", &norm, start, count)?;
        let params = params(count, d, offset, row_offset, eps);
        device.launch(&kernels::L2_NORMALIZE, params, &[from, to, lengths], count)?;
    }
    Ok(Normalized { y, norm })
}

pub(super) fn l2_normalize_backward(
    device: &GpuDevice,
    dy: &Tensor,
    forward: &Normalized,
    eps: f32,
) -> Result<Tensor> {
    let operation = "l2_normalize_backward";
    let [n, d] = forward.y.matrix(operation, "y")?;
    shapes::floats(operation, "y", &forward.y)?;
    shapes::same(operation, ("y", &forward.y), ("dy", dy))?;
    forward.norm.expect(operation, "norm", &[n], DType::F32)?;
    let dx = device.floats(&[n, d])?;
    for (start, count) in device.row_ranges(operation, n, &[d, 1], usize::MAX)? {
        let (dy, offset) = device.part_from(operation, "dy", dy, start * d, count * d)?;
        let (y, _) = device.part_from(operation, "y", &forward.y, start * d, count * d)?;
        let (norm, row_offset) =
            device.part_from(operation, "norm", &forward.norm, start, count)?;
        let (dx, _) = device.part_from(operation, "dx", &dx, start * d, count * d)?;
        let params = params(count, d, offset, row_offset, eps);
        let entry = &kernels::L2_NORMALIZE_BACKWARD;
        device.launch(entry, params, &[dy, y, norm, dx], count)?;
    }
    Ok(dx)
}
