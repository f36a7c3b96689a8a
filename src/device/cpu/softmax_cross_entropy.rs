//! Softmax cross-entropy: a row at a time, shifted by its maximum, summed in float64.

use super::parallel;
use super::{CpuDevice, read_f32, read_u32};
use crate::device::kernels::RowLoss;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

pub(super) fn softmax_cross_entropy(
    device: &CpuDevice,
    logits: &Tensor,
    labels: &Tensor,
) -> Result<RowLoss> {
    let op = "softmax_cross_entropy";
    let [n, classes] = shapes::cross_entropy(op, logits, labels)?;
    let (logits, labels) = (
        read_f32(op, "logits", logits)?,
        read_u32(op, "labels", labels)?,
    );
    let mut log_sum_exp = device.take(n);
    let mut total = 0.0;
    for ((row, lse), &label) in logits
        .chunks(classes)
        .zip(log_sum_exp.iter_mut())
        .zip(labels.iter())
    {
        let shift = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - shift).exp()).sum();
        let exact = f64::from(shift) + sum.ln();
        *lse = exact as f32;
        total += exact - row.get(label as usize).map_or(f64::NAN, |&x| f64::from(x));
    }
    let mut loss = device.take(1);
    loss[0] = (total / n as f64) as f32;
    Ok(RowLoss {
        loss: device.floats(&[1], loss),
        log_sum_exp: device.floats(&[n], log_sum_exp),
    })
}

pub(super) fn softmax_cross_entropy_backward(
    device: &CpuDevice,
    dloss: &Tensor,
    logits: &Tensor,
    labels: &Tensor,
    forward: &RowLoss,
) -> Result<Tensor> {
    let op = "softmax_cross_entropy_backward";
    let [n, classes] = shapes::cross_entropy(op, logits, labels)?;
    dloss.expect(op, "dloss", &[1], DType::F32)?;
    forward
        .log_sum_exp
        .expect(op, "log_sum_exp", &[n], DType::F32)?;
    let factor = read_f32(op, "dloss", dloss)?[0] / n as f32;
    let (logits, labels) = (
        read_f32(op, "logits", logits)?,
        read_u32(op, "labels", labels)?,
    );
    let log_sum_exp = read_f32(op, "log_sum_exp", &forward.log_sum_exp)?;
    let mut dlogits = device.take(n * classes);
    parallel::for_chunks(&mut dlogits, classes, |row, part| {
        let logits = &logits[row * classes..][..classes];
        for (class, (d, &x)) in part.iter_mut().zip(logits).enumerate() {
            let target = f32::from(u8::from(labels[row] as usize == class));
            *d = factor * ((x - log_sum_exp[row]).exp() - target);
        }
    });
    Ok(device.floats(&[n, classes], dlogits))
}
