//! The layer of batch norm, with running statistics, as `torch.nn.BatchNorm2d`. `ops::batch_norm`
//! has the operation and its gradient.

use super::{Module, Parameter};
use crate::autograd::{BufferUpdate, Mode, RunningStatistics, Var};
use crate::device::{Device, check_elements};
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::ops::batch_norm::{
    Activation, Affine, BatchStatistics, ChannelNorm, UpdateRunningStatistics,
};

/// Added to a variance before the square root: torch's default.
pub(crate) const EPS: f32 = 1e-5;

/// Batch norm over N, H, W of each channel. In training mode, a forward pass requests an update of
/// the running statistics ([`Tape::update_buffer`](crate::autograd::Tape::update_buffer)).
#[derive(Debug)]
pub struct BatchNorm {
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
}

impl BatchNorm {
    /// Scale 1, shift 0, running mean 0 and variance 1, each `[channels]`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn new(name: &str, channels: usize, device: &Device) -> Result<Self> {
        check_elements("batch_norm", &[channels])?;
        let filled = |what: &str, value: f32| {
            let values = vec![value; channels];
            Parameter::new(format!("{name}.{what}"), &values, &[channels], device)
        };
        Ok(BatchNorm {
            weight: filled("weight", 1.0)?,
            bias: filled("bias", 0.0)?,
            running_mean: filled("running_mean", 0.0)?,
            running_var: filled("running_var", 1.0)?,
        })
    }

    /// Normalises `x [N, C, H, W]`, then applies `activation`.
    ///
    /// # Errors
    /// `Error::Shape` if `x` has another number of channels.
    pub fn forward_with(&self, x: &Var, activation: Activation<&Var>) -> Result<Var> {
        let affine = Affine {
            gamma: &x.parameter(&self.weight),
            beta: &x.parameter(&self.bias),
            eps: EPS,
        };
        let running = self.running();
        if x.mode() == Mode::Evaluation {
            return x.batch_norm_evaluation(&running, affine, activation);
        }
        let (y, batch) = x.batch_norm_of(affine, activation, Some(&running))?;
        if let Some(tape) = x.tape() {
            let [n, _, h, w] = x.tensor().nchw("batch_norm", "x")?;
            let options = tape.options();
            let ranks = options.synchronized.map_or(1, Group::size);
            let (count, momentum) = (n * h * w * ranks, options.momentum);
            let statistics = RunningStatistics {
                mean: running.mean.clone(),
                variance: running.variance.clone(),
                count,
                momentum,
            };
            let values = vec![batch.mean, batch.variance];
            let update = BufferUpdate::new(values, move |device, values, gate| {
                let [mean, variance] = values else {
                    return Err(Error::shape("batch_norm", "an update has two values"));
                };
                let batch = BatchStatistics {
                    mean: mean.clone(),
                    variance: variance.clone(),
                };
                device.run(UpdateRunningStatistics {
                    running: &running,
                    batch: &batch,
                    count,
                    momentum,
                    gate,
                })
            });
            tape.update_buffer(update.of_running(statistics));
        }
        Ok(y)
    }

    /// The normalisation in evaluation mode.
    pub(super) fn channel_norm(&self) -> ChannelNorm {
        ChannelNorm {
            statistics: self.running(),
            gamma: self.weight.value.clone(),
            beta: self.bias.value.clone(),
            eps: EPS,
        }
    }

    fn running(&self) -> BatchStatistics {
        BatchStatistics {
            mean: self.running_mean.value.clone(),
            variance: self.running_var.value.clone(),
        }
    }
}

impl Module for BatchNorm {
    fn forward(&self, x: &Var) -> Result<Var> {
        self.forward_with(x, Activation::Identity)
    }

    /// Scale and shift.
    fn parameters(&self) -> Vec<&Parameter> {
        vec![&self.weight, &self.bias]
    }

    /// Running mean and variance.
    fn buffers(&self) -> Vec<&Parameter> {
        vec![&self.running_mean, &self.running_var]
    }
}
