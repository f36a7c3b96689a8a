//! Launches of `shaders/cross_entropy.wgsl`: one workgroup per row forward, one invocation per
//! element backward.

use super::{CrossEntropy, CrossEntropyBackward, RowLoss};
use crate::device::gpu::kernels::cross_entropy::{self as kernels, Params};
use crate::device::gpu::{Grid, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::elementwise::Scale;
use crate::ops::reduce::Sum;
use crate::tensor::Tensor;

/// The uniform for some rows of a batch of `n`.
fn params(slice: &Slice<'_>, [n, classes]: [usize; 2]) -> Params {
    Params {
        rows: slice.rows,
        classes,
        offset: slice.offset("logits"),
        row_offset: slice.offset("labels"),
        all_rows: n as f32,
        nan_bits: f32::NAN.to_bits() as usize,
    }
}

impl RowLoss {
    /// Computes the mean of the losses of the rows.
    pub(in crate::ops) fn mean(gpu: &Gpu, losses: &Tensor, log_sum_exp: Tensor) -> Result<Self> {
        let sum = &gpu.run(Sum { x: losses })?;
        let factor = 1.0 / losses.len() as f32;
        let loss = gpu.run(Scale { factor, x: sum })?;
        Ok(RowLoss { loss, log_sum_exp })
    }
}

impl RunOn<Gpu> for CrossEntropy<'_> {
    fn run(&self, gpu: &Gpu, [n, classes]: [usize; 2]) -> Result<RowLoss> {
        let (log_sum_exp, losses) = (gpu.floats(&[n])?, gpu.floats(&[n])?);
        gpu.launch(&kernels::CROSS_ENTROPY)
            .rows(n)
            .read("logits", self.logits, classes)
            .read("labels", self.labels, 1)
            .write("new_log_sum_exp", &log_sum_exp, 1)
            .write("losses", &losses, 1)
            .run(|slice| (params(slice, [n, classes]), Grid::Workgroups(slice.rows)))?;
        RowLoss::mean(gpu, &losses, log_sum_exp)
    }
}

impl RunOn<Gpu> for CrossEntropyBackward<'_> {
    fn run(&self, gpu: &Gpu, [n, classes]: [usize; 2]) -> Result<Tensor> {
        let dlogits = gpu.floats(&[n, classes])?;
        gpu.launch(&kernels::CROSS_ENTROPY_BACKWARD)
            .rows(n)
            .read("logits", self.logits, classes)
            .read("labels", self.labels, 1)
            .read("log_sum_exp", self.log_sum_exp, 1)
            .read("dloss", self.dloss, ..)
            .write("dlogits", &dlogits, classes)
            .run(|slice| {
                let grid = Grid::Invocations(slice.rows * classes);
                (params(slice, [n, classes]), grid)
            })?;
        Ok(dlogits)
    }
}
