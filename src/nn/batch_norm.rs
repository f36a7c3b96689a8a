//! Batch norm with running statistics, as `torch.nn.BatchNorm2d` keeps them.

use std::cell::RefCell;

use super::{Mode, Parameter};
use crate::autograd::{self, Affine, Tape, Var};
use crate::device::Device;
use crate::device::kernels::{Activation, BatchStatistics, ChannelNorm, RunningUpdate};
use crate::error::Result;
use crate::tensor::Tensor;

/// Added to a variance before the root, as torch's default.
const EPS: f32 = 1e-5;
/// The weight of a batch in the running statistics, as torch's default.
pub(super) const MOMENTUM: f32 = 0.1;

/// Batch norm over N, H, W of each channel.
///
/// In training mode the running statistics do not change at once: each forward pass leaves its batch's statistics here,
/// until [`BatchNorm::commit_running_statistics`] applies them. So a step whose gradient is not finite can leave them
/// as they were.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    pending: RefCell<Vec<Pending>>,
}

/// The statistics of one forward pass.
#[derive(Debug)]
struct Pending {
    batch: BatchStatistics,
    /// Elements a channel: N H W.
    count: usize,
}

impl BatchNorm {
    /// Scale 1, shift 0, running mean 0 and variance 1, each `[channels]`.
    pub fn new(device: &Device, name: &str, channels: usize) -> Result<Self> {
        let filled = |what: &str, value: f32| {
            let values = vec![value; channels];
            Parameter::new(device, format!("{name}.{what}"), &values, &[channels])
        };
        Ok(BatchNorm {
            name: name.to_string(),
            weight: filled("weight", 1.0)?,
            bias: filled("bias", 0.0)?,
            running_mean: filled("running_mean", 0.0)?,
            running_var: filled("running_var", 1.0)?,
            pending: RefCell::default(),
        })
    }

    /// `[N, C, H, W]` to the same, then `activation`.
    pub fn forward(
        &self,
        tape: &Tape,
        x: &Var,
        mode: Mode,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        tape.enter_layer(&self.name);
        let affine = Affine {
            gamma: &tape.leaf(&self.weight.value),
            beta: &tape.leaf(&self.bias.value),
            eps: EPS,
        };
        match mode {
            Mode::Training | Mode::TrainingAgain => {
                let [n, _, h, w] = x.tensor().nchw("batch_norm", "x")?;
                let (y, batch) = autograd::batch_norm_training(tape, x, affine, activation)?;
                if mode == Mode::Training {
                    let count = n * h * w;
                    self.pending.borrow_mut().push(Pending { batch, count });
                }
                Ok(y)
            }
            Mode::Evaluation => {
                let running = self.running();
                autograd::batch_norm_evaluation(tape, x, &running, affine, activation)
            }
        }
    }

    /// What the layer does in evaluation mode.
    pub(super) fn channel_norm(&self) -> ChannelNorm {
        ChannelNorm {
            statistics: self.running(),
            gamma: self.weight.value.clone(),
            beta: self.bias.value.clone(),
            eps: EPS,
        }
    }

    /// Moves the running statistics by `momentum` towards those of each training pass since the last commit, in order,
    /// unless `gate` (u32 `[1]`) is set on the device.
    pub fn commit_running_statistics(
        &self,
        device: &Device,
        momentum: f32,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        for Pending { batch, count } in self.pending.take() {
            let update = RunningUpdate { count, momentum };
            device.update_running_statistics(&self.running(), &batch, update, gate)?;
        }
        Ok(())
    }

    /// Forgets the statistics of passes that were not committed.
    pub fn discard_running_statistics(&self) {
        self.pending.take();
    }

    fn running(&self) -> BatchStatistics {
        BatchStatistics {
            mean: self.running_mean.value.clone(),
            variance: self.running_var.value.clone(),
        }
    }

    /// Scale and shift.
    pub fn parameters(&self) -> [&Parameter; 2] {
        [&self.weight, &self.bias]
    }

    /// Running mean and variance.
    pub fn buffers(&self) -> [&Parameter; 2] {
        [&self.running_mean, &self.running_var]
    }
}
