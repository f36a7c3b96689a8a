//! Whether a training step fits in memory, told before anything large is allocated.

use sysinfo::System;

use super::probe::Probe;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::ResNetConfig;
use crate::optim::OptimizerOptions;

/// A training step.
#[derive(Clone, Copy, Debug)]
pub struct StepSize {
    pub encoder: ResNetConfig,
    /// Side of the views in pixels.
    pub side: usize,
    pub views_per_image: usize,
    pub batch_size: usize,
    pub optimizer: OptimizerOptions,
}

/// Bytes of a step of no view, and of each view more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMemory {
    pub base: f64,
    pub per_view: f64,
}

/// Views of the two steps that are taken to measure; enough that activations outweigh gradients.
const PROBED: [usize; 2] = [8, 16];
/// No step holds so many times the convolutions' outputs, nor so many times the weights.
const BOUND: f64 = 6.0;

impl StepSize {
    fn views(&self) -> usize {
        self.batch_size * self.views_per_image
    }

    /// Copies of the weights that the optimiser keeps.
    fn moments(&self) -> f64 {
        match self.optimizer {
            OptimizerOptions::Adam(_) => 2.0,
            OptimizerOptions::Sgd(_) => 1.0,
        }
    }

    fn weights(&self) -> Result<f64> {
        Ok(4.0 * self.encoder.shape()?.parameter_count() as f64)
    }

    /// More than the step takes, without a measurement.
    fn bound(&self) -> Result<f64> {
        let outputs = 4.0 * self.encoder.shape()?.conv_outputs(self.side)? as f64;
        Ok(BOUND * (outputs * self.views() as f64 + self.weights()?))
    }

    /// Measures two small steps, each on a device that `open` gives anew, since a device keeps buffers for the next step.
    ///
    /// # Errors
    /// As the steps.
    pub fn measure(&self, open: &dyn Fn() -> Result<Device>) -> Result<StepMemory> {
        let peak = |views: usize| -> Result<f64> {
            let probe = Probe::new(open()?, &self.encoder, self.side, views)?;
            probe.train()?;
            Ok(probe.device().memory().peak as f64)
        };
        let [small, large] = [peak(PROBED[0])?, peak(PROBED[1])?];
        let per_view = (large - small).max(0.0) / (PROBED[1] - PROBED[0]) as f64;
        Ok(StepMemory {
            base: small - PROBED[0] as f64 * per_view + self.moments() * self.weights()?,
            per_view,
        })
    }

    /// Fails where the step does not fit in the memory that is free beside `device`, as far as that is known: a graphics
    /// card's own memory is not, and allocations on it fail with an error of their own. `open` gives such a device anew.
    ///
    /// # Errors
    /// `Error::Usage` with what is needed and the largest batch that fits.
    pub fn check(&self, device: &Device, open: &dyn Fn() -> Result<Device>) -> Result<()> {
        if !device.in_host_memory() {
            return Ok(());
        }
        let mut system = System::new();
        system.refresh_memory();
        // Some systems do not tell.
        match system.available_memory() {
            0 => Ok(()),
            free => self.check_against(free as f64, open),
        }
    }

    /// As [`StepSize::check`], with `free` bytes.
    ///
    /// # Errors
    /// As [`StepSize::check`].
    pub fn check_against(&self, free: f64, open: &dyn Fn() -> Result<Device>) -> Result<()> {
        if self.bound()? <= free {
            return Ok(());
        }
        let memory = self.measure(open)?;
        let needed = memory.base + memory.per_view * self.views() as f64;
        if needed <= free {
            return Ok(());
        }
        let largest = (free - memory.base) / (memory.per_view * self.views_per_image as f64);
        let mib = |bytes: f64| (bytes / f64::from(1 << 20)).round();
        let advice = match largest.floor() {
            n if n >= 1.0 => format!("use --batch-size {n} or less, or a smaller --width"),
            _ => "use a smaller --width".to_string(),
        };
        Err(Error::usage(format!(
            "a step of --batch-size {} needs about {} MiB and {} MiB are free; {advice}",
            self.batch_size,
            mib(needed),
            mib(free)
        )))
    }
}
