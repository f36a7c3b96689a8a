//! Estimates whether a training step fits in memory, before anything large is allocated.

use std::sync::OnceLock;

use sysinfo::System;

use super::probe::Probe;
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::nn::ResNetConfig;
use crate::optim::OptimizerOptions;
use crate::tensor::DType;
use crate::train::micro_batch::in_parts;

/// The part of the free memory that the decoded images of a folder may take. The split, the device
/// and an evaluation at the end may each hold them.
const HELD_IMAGES: u64 = 4;

/// Bytes of the images of a folder that are held by this process. It does not change.
pub fn bytes_for_images() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| match free_bytes() {
        None => u64::MAX,
        Some(free) => free / HELD_IMAGES / distributed::current().on_machine() as u64,
    })
}

/// The free memory, if the system reports it.
fn free_bytes() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    Some(system.available_memory()).filter(|&free| free > 0)
}

/// A training step.
#[derive(Clone, Copy, Debug)]
pub struct StepSize {
    pub encoder: ResNetConfig,
    /// Side of the views in pixels.
    pub side: usize,
    pub views_per_image: usize,
    pub batch_size: usize,
    /// Images per chunk, if the batch is processed in chunks.
    pub micro_batch: Option<usize>,
    /// Whether the backward pass recomputes blocks.
    pub recompute: bool,
    /// Element type of the network's activations.
    pub activations: DType,
    pub optimizer: OptimizerOptions,
    /// Parameters of the head.
    pub head_parameters: usize,
    /// Bytes of images that are held during the whole training, beside the split itself: see
    /// [`crate::augment::ImageStore::bytes_held`].
    pub image_bytes: usize,
}

/// Memory of a step: a constant, and bytes per view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMemory {
    pub base: f64,
    pub per_view: f64,
}

/// Views in the two measured steps; enough that activations outweigh gradients.
const PROBED: [usize; 2] = [8, 16];
/// Number of tensors of the size of the weights that a GPU holds during a whole step: the
/// gradients, and copies of the weights.
const ON_A_GPU: f64 = 2.0;
/// Bytes per view for its embedding of 128 floats and the tensors that the loss derives from it, if
/// the batch is processed in chunks. Objectives without embeddings, such as RotNet, need less.
const CACHED: f64 = 8.0 * 4.0 * 128.0;
/// Safety factor of the estimate: reported memory is up to an eighth below the memory held, and
/// threads of the program and the system need some.
const MARGIN: f64 = 1.15;
/// Upper bound of the memory of a step, as a multiple of the convolutions' outputs and of the
/// weights.
const BOUND: f64 = 6.0;

impl StepSize {
    /// Views of the batch.
    fn views(&self) -> usize {
        self.batch_size * self.views_per_image
    }

    /// Maximum number of views whose activations are held at a time.
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

    /// Bytes of the step, for the measured `memory`.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible.
    pub fn needed(&self, memory: StepMemory) -> Result<f64> {
        // Values, gradients and moments.
        let head = 4.0 * (2.0 + self.moments()) * self.head_parameters as f64;
        let beside = head + self.image_bytes as f64;
        let held = memory.base + beside + memory.per_view * self.views_held() as f64;
        Ok(match in_parts(self.batch_size, self.micro_batch) {
            // The sum of the gradients of earlier chunks, in addition to those of the current
            // chunk.
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

    /// Upper bound of the step's bytes, without a measurement.
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

    /// Measures two small steps, each on a new device from `open`, because a device keeps buffers
    /// for the next step.
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

    /// Fails if the step does not fit in the free memory, which the ranks on one machine share. On a
    /// graphics card with memory of its own, the free memory is measured: buffers are allocated and
    /// freed. `open` opens the same device again.
    ///
    /// # Errors
    /// `Error::Usage` with the needed memory, and the largest chunk and batch that fit.
    pub fn check(&self, device: &Device, open: &dyn Fn() -> Result<Device>) -> Result<()> {
        if let Some(gpu) = device.as_gpu().filter(|_| !device.in_host_memory()) {
            // At most the upper bound, so that a large card is not filled.
            let free = gpu.allocatable((self.bound()? * MARGIN).ceil() as u64);
            return self.check_against(free as f64, open);
        }
        match free_bytes() {
            None => Ok(()),
            // Each rank on this machine takes a step of this size.
            Some(free) => {
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
        let without_images = StepSize {
            image_bytes: 0,
            ..*self
        };
        if without_images.needed(memory)? <= usable {
            advice.push("--hold-images never for a folder of images".to_string());
        }
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

    /// The largest chunk, smaller than the batch, that fits in `free` bytes, or `None` if one image
    /// does not fit.
    fn largest_chunk(&self, memory: StepMemory, free: f64) -> Result<Option<usize>> {
        for images in (1..self.batch_size).rev() {
            if self.in_chunks_of(images).needed(memory)? <= free {
                return Ok(Some(images));
            }
        }
        Ok(None)
    }
}
