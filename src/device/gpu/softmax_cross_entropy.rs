//! Launches of `shaders/softmax_cross_entropy.wgsl`.

use super::shaders::softmax_cross_entropy::{self as kernels, Params};
use super::{GpuDevice, elementwise, reduce};
use crate::device::kernels::RowLoss;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The mean of the losses of `rows`, `[1]`.
pub(super) fn mean(device: &GpuDevice, losses: &Tensor) -> Result<Tensor> {
    let sum = reduce::sum(device, losses)?;
    elementwise::scale(device, 1.0 / losses.len() as f32, &sum)
}

/// What the kernels are told of `rows` rows of a batch.
fn params(
    [all_rows, classes]: [usize; 2],
    rows: usize,
    offset: usize,
    row_offset: usize,
) -> Params {
    Params {
        rows: rows as u32,
        classes: classes as u32,
        offset: offset as u32,
        row_offset: row_offset as u32,
        all_rows: all_rows as f32,
        nan_bits: f32::NAN.to_bits(),
    }
}

pub(super) fn softmax_cross_entropy(
    device: &GpuDevice,
    logits: &Tensor,
    labels: &Tensor,
) -> Result<RowLoss> {
    let operation = "softmax_cross_entropy";
    let [n, classes] = shapes::cross_entropy(operation, logits, labels)?;
    let (log_sum_exp, losses) = (device.floats(&[n])?, device.floats(&[n])?);
    for (start, count) in device.row_ranges(operation, n, &[classes, 1], usize::MAX)? {
        let rows = |name: &str, x: &Tensor| device.part_from(operation, name, x, start, count);
        let (from, offset) = device.part_from(
            operation,
            "logits",
            logits,
            start * classes,
            count * classes,
        )?;
        let (labels, row_offset) = rows("labels", labels)?;
        let parts = [
            from,
            labels,
            rows("log_sum_exp", &log_sum_exp)?.0,
            rows("losses", &losses)?.0,
        ];
        let params = params([n, classes], count, offset, row_offset);
        device.launch(&kernels::SOFTMAX_CROSS_ENTROPY, params, &parts, count)?;
    }
    Ok(RowLoss {
        loss: mean(device, &losses)?,
        log_sum_exp,
    })
}

pub(super) fn softmax_cross_entropy_backward(
    device: &GpuDevice,
    dloss: &Tensor,
    logits: &Tensor,
    labels: &Tensor,
    forward: &RowLoss,
) -> Result<Tensor> {
    let operation = "softmax_cross_entropy_backward";
    let [n, classes] = shapes::cross_entropy(operation, logits, labels)?;
    dloss.expect(operation, "dloss", &[1], DType::F32)?;
    let log_sum_exp = &forward.log_sum_exp;
    log_sum_exp.expect(operation, "log_sum_exp", &[n], DType::F32)?;
    let dlogits = device.floats(&[n, classes])?;
    for (start, count) in device.row_ranges(operation, n, &[classes, 1], usize::MAX)? {
        let rows = |name: &str, x: &Tensor| device.part_from(operation, name, x, start, count);
        let (first, len) = (start * classes, count * classes);
        let (from, offset) = device.part_from(operation, "logits", logits, first, len)?;
        let (labels, row_offset) = rows("labels", labels)?;
        let parts = [
            from,
            labels,
            rows("log_sum_exp", log_sum_exp)?.0,
            device.whole(operation, "dloss", dloss)?,
            device
                .part_from(operation, "dlogits", &dlogits, first, len)?
                .0,
        ];
        let params = params([n, classes], count, offset, row_offset);
        let entry = &kernels::SOFTMAX_CROSS_ENTROPY_BACKWARD;
        device.launch(entry, params, &parts, len.div_ceil(256))?;
    }
    Ok(dlogits)
}
