//! Whether a training step fits in memory, told before anything large is allocated.

use sysinfo::System;

use super::probe::Probe;
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::nn::ResNetConfig;
use crate::optim::OptimizerOptions;
use crate::tensor::DType;
use crate::train::micro_batch::in_parts;

/// A training step.
#[derive(Clone, Copy, Debug)]
pub struct StepSize {
    pub encoder: ResNetConfig,
    /// Side of the views in pixels.
    pub side: usize,
    pub views_per_image: usize,
    pub batch_size: usize,
    /// Images that pass the network at a time, where the batch is cut.
    pub micro_batch: Option<usize>,
    /// Whether the backward pass recomputes blocks.
    pub recompute: bool,
    /// How the network's activations are stored.
    pub activations: DType,
    pub optimizer: OptimizerOptions,
    /// Learned numbers of what stands on the encoder.
    pub head_parameters: usize,
    /// Bytes of the images that the device holds from the first step to the last.
    pub image_bytes: usize,
}

/// Bytes of a step of no view, and of each view more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMemory {
    pub base: f64,
    pub per_view: f64,
}

/// Views of the two steps that are taken to measure; enough that activations outweigh gradients.
const PROBED: [usize; 2] = [8, 16];
/// Tensors of the size of the weights that a GPU holds during a whole step: the gradients, and copies of the weights.
const ON_A_GPU: f64 = 2.0;
/// Bytes of a view whose embedding is kept while the batch passes in chunks: 128 numbers, and as many in each of the
/// tensors that the loss makes of them. Where nothing is kept, as in RotNet, it is little beside the rest.
const CACHED: f64 = 8.0 * 4.0 * 128.0;
/// A step must fit so many times: what is told is up to an eighth less than what is held, and memory of the system's
/// and of the program's threads comes on top.
const MARGIN: f64 = 1.15;
/// No step holds so many times the convolutions' outputs, nor so many times the weights.
const BOUND: f64 = 6.0;

impl StepSize {
    /// Views of the batch.
    fn views(&self) -> usize {
        self.batch_size * self.views_per_image
    }

    /// Views whose activations are held at a time, at most.
    fn views_held(&self) -> usize {
        match in_parts(self.batch_size, self.micro_batch) {
            Some(images) => images * self.views_per_image,
            None => self.views(),
        }
    }

    /// The same step in chunks of `images` images.
    fn in_chunks_of(&self, images: usize) -> Self {
        StepSize {
            micro_batch: Some(images),
            ..*self
        }
    }

    /// Bytes of the step, `memory` being what was measured.
    ///
    /// # Errors
    /// `Error::Usage` where the network cannot be.
    pub fn needed(&self, memory: StepMemory) -> Result<f64> {
        // Values, gradients and moments.
        let head = 4.0 * (2.0 + self.moments()) * self.head_parameters as f64;
        let beside = head + self.image_bytes as f64;
        let held = memory.base + beside + memory.per_view * self.views_held() as f64;
        Ok(match in_parts(self.batch_size, self.micro_batch) {
            // The gradients of the chunks so far, beside those of the chunk at hand.
            Some(_) => held + self.weights()? + CACHED * self.views() as f64,
            None => held,
        })
    }

    /// Copies of the weights that the optimiser keeps.
    fn moments(&self) -> f64 {
        match self.optimizer {
            OptimizerOptions::Adam(_) => 2.0,
            OptimizerOptions::Sgd(_) | OptimizerOptions::Lars(_) => 1.0,
        }
    }

    fn weights(&self) -> Result<f64> {
        Ok(4.0 * self.encoder.shape()?.parameter_count() as f64)
    }

    /// More than the step takes, without a measurement.
    fn bound(&self) -> Result<f64> {
        let bytes = self.activations.bytes() as f64;
        let outputs = bytes * self.encoder.shape()?.conv_outputs(self.side)? as f64;
        Ok(
            BOUND * (outputs * self.views_held() as f64 + self.weights()?)
                + CACHED * self.views() as f64
                + BOUND * 4.0 * self.head_parameters as f64
                + self.image_bytes as f64,
        )
    }

    /// Measures two small steps, each on a device that `open` gives anew, since a device keeps buffers for the next
    /// step.
    ///
    /// # Errors
    /// As the steps.
    pub fn measure(&self, open: &dyn Fn() -> Result<Device>) -> Result<StepMemory> {
        let peak = |views: usize| -> Result<(f64, f64)> {
            let probe = Probe::new(open()?, &self.encoder, self.side, views)?;
            probe.train(self.recompute, self.activations)?;
            let device = probe.device();
            let flat = device.as_gpu().map_or(0.0, |_| ON_A_GPU);
            Ok((device.memory().peak as f64, flat))
        };
        let [(small, flat), (large, _)] = [peak(PROBED[0])?, peak(PROBED[1])?];
        let per_view = (large - small).max(0.0) / (PROBED[1] - PROBED[0]) as f64;
        Ok(StepMemory {
            base: small - PROBED[0] as f64 * per_view + (self.moments() + flat) * self.weights()?,
            per_view,
        })
    }

    /// Fails if the step does not fit in the memory that is free beside `device`. Ranks on one machine
    /// divide the free memory of the host. On a graphics card
    /// with memory of its own, the free memory is measured: buffers are allocated and freed. `open`
    /// opens the same device again.
    ///
    /// # Errors
    /// `Error::Usage` with what is needed and the largest chunk and the largest batch that fit.
    pub fn check(&self, device: &Device, open: &dyn Fn() -> Result<Device>) -> Result<()> {
        if let Some(gpu) = device.as_gpu().filter(|_| !device.in_host_memory()) {
            // No more than a step can take, so that a large card is not filled.
            let free = gpu.allocatable((self.bound()? * MARGIN).ceil() as u64);
            return self.check_against(free as f64, open);
        }
        let mut system = System::new();
        system.refresh_memory();
        // Some systems do not tell.
        match system.available_memory() {
            0 => Ok(()),
            // Each rank on this machine takes a step of this size.
            free => {
                let free = free as f64 / distributed::current().on_machine() as f64;
                self.check_against(free, open)
            }
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
        let usable = free / MARGIN;
        let memory = self.measure(open)?;
        let needed = self.needed(memory)?;
        if needed <= usable {
            return Ok(());
        }
        let mut advice = Vec::new();
        let recomputing = StepSize {
            recompute: true,
            ..*self
        };
        if !self.recompute && recomputing.needed(recomputing.measure(open)?)? <= usable {
            advice.push("--recompute".to_string());
        }
        let halved = StepSize {
            activations: DType::F16,
            ..*self
        };
        let fits = |memory| Ok::<bool, Error>(halved.needed(memory)? <= usable);
        if self.activations == DType::F32 && halved.measure(open).and_then(fits).unwrap_or(false) {
            advice.push("--precision f16".to_string());
        }
        if let Some(images) = self.largest_chunk(memory, usable)? {
            advice.push(format!("--micro-batch {images}"));
        }
        let none = StepSize {
            batch_size: 0,
            micro_batch: None,
            ..*self
        };
        let of_an_image = memory.per_view * self.views_per_image as f64;
        let largest = (usable - none.needed(memory)?) / of_an_image;
        let mib = |bytes: f64| (bytes / f64::from(1 << 20)).round();
        if largest >= 1.0 && self.micro_batch.is_none() {
            advice.push(format!("--batch-size {} or less", largest.floor()));
        }
        advice.push("a smaller --width".to_string());
        let ranks = distributed::current().size();
        let chunks = match self.micro_batch {
            Some(images) if ranks > 1 && images * ranks >= self.batch_size => String::new(),
            Some(images) => format!(" and --micro-batch {images}"),
            None => String::new(),
        };
        let per_rank = if ranks > 1 { " per rank" } else { "" };
        Err(Error::usage(format!(
            "a step of --batch-size {}{chunks} needs about {} MiB{per_rank}, with a seventh to spare, and {} MiB are \
             free{per_rank}; use {}",
            self.batch_size,
            mib(needed),
            mib(free),
            advice.join(", or ")
        )))
    }

    /// The most images that can pass at a time in `free` bytes, fewer than the batch; `None` where not even one can.
    fn largest_chunk(&self, memory: StepMemory, free: f64) -> Result<Option<usize>> {
        for images in (1..self.batch_size).rev() {
            if self.in_chunks_of(images).needed(memory)? <= free {
                return Ok(Some(images));
            }
        }
        Ok(None)
    }
}
