//! SimCLR (Chen et al. 2020): two random views of each image, an encoder, a projector, NT-Xent.

use super::Protocol;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::autograd::{self, Gradients, Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Mode, Parameter, Projector, ResNet, ResNetConfig, Stem};
use crate::optim::{Optimization, OptimizerOptions};
use crate::tensor::Tensor;
use crate::train::{Objective, Tapes, micro_batch, whole_batch};

/// What a pretraining is.
#[derive(Clone, Debug)]
pub struct SimClrSettings {
    pub encoder: ResNetConfig,
    /// Images a step; each gives two views.
    pub batch_size: usize,
    /// Images that pass the encoder at a time, where the batch does not fit in memory: the loss still contrasts the
    /// whole batch. See [`micro_batch`] for what stays exact.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    pub temperature: f32,
    pub augmentation: SimClrAugmentation,
    /// Whether each view passes the encoder on its own, with batch statistics of its own.
    pub separate_passes: bool,
    pub seed: u64,
}

impl SimClrSettings {
    /// The settings of `protocol` for views of `size` pixels. `weight_decay` is what the paper's text asks for; its
    /// code does not apply it, nor does [`Protocol::Paper`].
    pub fn of_protocol(
        protocol: Protocol,
        mut encoder: ResNetConfig,
        size: usize,
        batch_size: usize,
        weight_decay: f32,
        seed: u64,
    ) -> Self {
        let is_paper = protocol == Protocol::Paper;
        if let Stem::Cifar { padding } = &mut encoder.stem {
            *padding = if is_paper { 0 } else { 1 };
        }
        SimClrSettings {
            encoder,
            batch_size,
            micro_batch: None,
            optimization: Optimization {
                optimizer: OptimizerOptions::adam(if is_paper { 0.0 } else { weight_decay }),
                learning_rate: 1e-3,
                schedule: protocol.schedule(),
            },
            temperature: 0.5,
            augmentation: if is_paper {
                SimClrAugmentation::paper(size)
            } else {
                SimClrAugmentation::sound(size)
            },
            separate_passes: is_paper,
            seed,
        }
    }

    /// Fails where the batch cannot be cut into chunks of `micro_batch` images.
    ///
    /// # Errors
    /// As [`micro_batch::check`].
    pub fn check_micro_batch(&self) -> Result<()> {
        let views = if self.separate_passes { 1 } else { 2 };
        micro_batch::check(
            self.batch_size,
            self.micro_batch,
            &self.encoder.shape()?,
            self.augmentation.size,
            views,
        )
    }
}

/// The objective: an encoder, a projector, and the images that they learn from.
pub struct SimClr {
    device: Device,
    settings: SimClrSettings,
    pub encoder: ResNet,
    pub projector: Projector,
    /// How batch norm behaves: in training mode, unless somebody wants gradients that do not depend on how the batch is
    /// cut.
    pub mode: Mode,
    images: ImageStore,
    sampler: EpochSampler,
}

impl SimClr {
    /// Draws the weights and puts the images of `split` on `device`.
    ///
    /// # Errors
    /// `Error::Usage` for a batch that is larger than the split or has fewer than two images, or chunks that it cannot
    /// be cut into.
    pub fn new(device: &Device, settings: SimClrSettings, split: &Split) -> Result<Self> {
        if settings.batch_size < 2 {
            return Err(Error::usage(format!(
                "the batch size is {}; SimCLR contrasts images with each other and needs 2 or more",
                settings.batch_size
            )));
        }
        settings.check_micro_batch()?;
        let sampler = EpochSampler::new(split.len(), settings.batch_size, settings.seed)?;
        let encoder = ResNet::new(device, &settings.encoder, settings.seed)?;
        let projector = Projector::new(device, encoder.feature_width(), settings.seed)?;
        Ok(SimClr {
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            device: device.clone(),
            settings,
            encoder,
            projector,
            mode: Mode::Training,
            sampler,
        })
    }

    /// The two views of step `step`'s images, each `[B, 3, size, size]`.
    pub fn views(&mut self, step: u64) -> Result<[Tensor; 2]> {
        let samples = self.sampler.batch(step);
        self.views_of(&samples, step)
    }

    /// The two views of `samples`, which belong to step `step`, each `[samples, 3, size, size]`. A view depends on its
    /// sample and not on its place, so that a chunk of a batch has the views that it has in the whole batch.
    pub fn views_of(&self, samples: &[u32], step: u64) -> Result<[Tensor; 2]> {
        let images = self.images.gather(samples)?;
        let [_, height, width] = self.images.image_shape();
        let augmentation = &self.settings.augmentation;
        let view = |view: u32| {
            let key = ViewKey {
                seed: self.settings.seed,
                step: step as u32,
                view,
            };
            let parameters = augmentation.draw(key, samples, height, width);
            augmentation.apply(&self.device, &images, &parameters)
        };
        Ok([view(0)?, view(1)?])
    }

    /// The projections `[2B, 128]` of both views of `samples`, first views above second views.
    fn project(&self, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        let [first, second] = self.views_of(samples, step)?;
        let encode = |x: &Tensor| {
            let features = self.encoder.forward(tape, &tape.constant(x), self.mode)?;
            self.projector.forward(tape, &features)
        };
        if self.settings.separate_passes {
            autograd::concat(tape, &encode(&first)?, &encode(&second)?)
        } else {
            encode(&self.device.concat(&first, &second)?)
        }
    }

    /// The mean NT-Xent loss of projections `z [2B, 128]`.
    fn contrast(&self, tape: &Tape, z: &Var) -> Result<Var> {
        let z = autograd::l2_normalize(tape, z, 1e-12)?;
        autograd::nt_xent(tape, &z, self.settings.temperature)
    }

    /// The loss over the whole batch of step `step` and its gradients, with the activations of `micro_batch` images (1
    /// or more) at a time: see [`micro_batch::cached`]. What is cached are the projections, 128 numbers a view.
    ///
    /// # Errors
    /// As a step of the whole batch.
    pub fn cached_gradients(
        &mut self,
        tapes: &Tapes,
        step: u64,
        micro_batch: usize,
    ) -> Result<(Tensor, Gradients)> {
        let samples = self.sampler.batch(step);
        let this = &*self;
        micro_batch::cached(
            tapes,
            &this.encoder,
            samples.len(),
            micro_batch,
            |tape, chunk| this.project(tape, &samples[chunk], step),
            |tape, z| this.contrast(tape, z),
        )
    }
}

impl Objective for SimClr {
    /// The mean NT-Xent loss over the 2B views.
    fn loss(&mut self, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.sampler.batch(step);
        let z = self.project(tape, &samples, step)?;
        self.contrast(tape, &z)
    }

    fn gradients(&mut self, tapes: &Tapes, step: u64) -> Result<(Tensor, Gradients)> {
        let SimClrSettings {
            batch_size,
            micro_batch,
            ..
        } = self.settings;
        match micro_batch::in_parts(batch_size, micro_batch) {
            Some(images) => self.cached_gradients(tapes, step, images),
            None => whole_batch(self, tapes, step),
        }
    }

    fn encoder(&self) -> &ResNet {
        &self.encoder
    }

    fn parameters(&self) -> Vec<&Parameter> {
        let mut all = self.encoder.parameters();
        all.extend(self.projector.parameters());
        all
    }
}
