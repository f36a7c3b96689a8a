//! The expected time and memory of a job: the number of images that pass through its network, times
//! the measured cost per image.

use std::time::Instant;

use crate::device::Device;
use crate::error::Result;
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::runs::probe::Probe;
use crate::tensor::DType;

/// A network at an image size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    pub arch: Arch,
    pub stem: Stem,
    /// Side of the images in pixels.
    pub side: usize,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            arch: Arch::ResNet50,
            stem: Stem::Cifar { padding: 1 },
            side: 32,
        }
    }
}

/// The work of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    pub network: Network,
    /// Images or views with a forward and a full backward pass, over the whole job.
    pub trained: u64,
    /// Of these, in one step.
    pub trained_at_once: u64,
    /// Images with a forward pass in evaluation mode.
    pub evaluated: u64,
    /// Images whose gradient with respect to their pixels is computed.
    pub attacked: u64,
}

impl Work {
    /// Returns the floating-point operations at this width of the network. An evaluated image
    /// counts as one forward pass, a gradient with respect to its pixels as two, and a training
    /// step as three.
    ///
    /// # Errors
    /// `Error::Usage` if the network cannot have this width, `Error::Shape` if the images are too
    /// small.
    pub fn flops(&self, width: f64) -> Result<f64> {
        let Network { arch, stem, side } = self.network;
        let forward = ResNetConfig { arch, stem, width }.shape()?.flops(side)?;
        let passes = 3 * self.trained + 2 * self.attacked + self.evaluated;
        Ok(forward as f64 * passes as f64)
    }
}

/// Images of a batch in evaluation and attacks.
const EVALUATION_BATCH: u64 = 128;
/// Images of the timed passes.
const PROBE: usize = 32;
/// Seconds of a job in addition to its passes: opening, reading, writing.
const OVERHEAD: f64 = 1.0;

/// Seconds and bytes of passes through one network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub network: Network,
    /// Seconds per image.
    pub training: f64,
    pub evaluation: f64,
    pub input_gradient: f64,
    /// Peak bytes of a training step: a constant, and per image.
    pub base_bytes: f64,
    pub bytes_per_image: f64,
    /// Peak bytes per image in evaluation mode and in an attack.
    pub bytes_per_evaluated: f64,
    pub bytes_per_attacked: f64,
}

/// The expected time and memory of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub seconds: f64,
    pub peak_bytes: u64,
}

impl Rates {
    /// Times passes of a few images. `open` opens a new device for each pass, whose peak memory is
    /// that of the pass.
    ///
    /// # Errors
    /// As the passes.
    pub fn measure(
        network: Network,
        width: f64,
        open: &dyn Fn() -> Result<Device>,
    ) -> Result<Self> {
        let config = ResNetConfig {
            arch: network.arch,
            stem: network.stem,
            width,
        };
        let timed = |images: usize, pass: &dyn Fn(&Probe) -> Result<()>| -> Result<(f64, f64)> {
            let probe = Probe::new(open()?, &config, network.side, images)?;
            // The first pass also allocates buffers and compiles pipelines.
            pass(&probe)?;
            let started = Instant::now();
            pass(&probe)?;
            let seconds = started.elapsed().as_secs_f64() / images as f64;
            Ok((seconds, probe.device().memory().peak as f64))
        };
        let train = |probe: &Probe| probe.train(false, DType::F32);
        let (_, small) = timed(PROBE / 2, &train)?;
        let (training, large) = timed(PROBE, &train)?;
        let (evaluation, evaluation_bytes) = timed(PROBE, &Probe::evaluate)?;
        let (gradient, gradient_bytes) = timed(PROBE, &Probe::attack)?;
        let bytes_per_image = ((large - small) / (PROBE / 2) as f64).max(0.0);
        let base_bytes = (large - bytes_per_image * PROBE as f64).max(0.0);
        let rest = |peak: f64| ((peak - base_bytes) / PROBE as f64).max(0.0);
        Ok(Rates {
            network,
            training,
            evaluation,
            input_gradient: gradient,
            base_bytes,
            bytes_per_image,
            bytes_per_evaluated: rest(evaluation_bytes),
            bytes_per_attacked: rest(gradient_bytes),
        })
    }

    /// The expected time and memory of a job of this network.
    pub fn estimate(&self, work: &Work) -> Estimate {
        let seconds = OVERHEAD
            + work.trained as f64 * self.training
            + work.evaluated as f64 * self.evaluation
            + work.attacked as f64 * self.input_gradient;
        let batch = |count: u64| count.min(EVALUATION_BATCH) as f64;
        let bytes = [
            work.trained_at_once as f64 * self.bytes_per_image,
            batch(work.evaluated) * self.bytes_per_evaluated,
            batch(work.attacked) * self.bytes_per_attacked,
        ];
        let largest = bytes.into_iter().fold(0.0, f64::max);
        Estimate {
            seconds,
            peak_bytes: (self.base_bytes + largest) as u64,
        }
    }
}
