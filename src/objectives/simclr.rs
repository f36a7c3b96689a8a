//! SimCLR (Chen et al. 2020): two random views of each image, an encoder, a projector, NT-Xent.

use super::Protocol;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::autograd::{Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Module, Projector, ResNet, ResNetConfig, Stem};
use crate::ops::copy::Concat;
use crate::optim::{Optimization, OptimizerOptions};
use crate::tensor::Tensor;
use crate::train::{Objective, PartialObjective, micro_batch};

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

/// The network of a pretraining: an encoder and its projector.
pub type SimClrNetwork = (ResNet, Projector);

/// Draws the network of a pretraining.
///
/// # Errors
/// `Error::Usage` if the configuration is not valid; `Error::Device` if memory is short.
pub fn network(settings: &SimClrSettings, device: &Device) -> Result<SimClrNetwork> {
    let encoder = ResNet::new(&settings.encoder, settings.seed, device)?;
    let projector = Projector::new(encoder.feature_width(), settings.seed, device)?;
    Ok((encoder, projector))
}

/// The objective: NT-Xent over two views of each image, for a module that maps views to projections.
pub struct SimClr {
    device: Device,
    settings: SimClrSettings,
    images: ImageStore,
    sampler: EpochSampler,
}

impl SimClr {
    /// Copies the images of `split` to `device`.
    ///
    /// # Errors
    /// `Error::Usage` for a batch that is larger than the split or has fewer than two images, or chunks
    /// that it cannot be cut into.
    pub fn new(settings: SimClrSettings, split: &Split, device: &Device) -> Result<Self> {
        if settings.batch_size < 2 {
            return Err(Error::usage(format!(
                "the batch size is {}; SimCLR contrasts images with each other and needs 2 or more",
                settings.batch_size
            )));
        }
        settings.check_micro_batch()?;
        Ok(SimClr {
            sampler: EpochSampler::new(split.len(), settings.batch_size, settings.seed)?,
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            device: device.clone(),
            settings,
        })
    }

    /// The two views of step `step`'s images, each `[B, 3, size, size]`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn views(&mut self, step: u64) -> Result<[Tensor; 2]> {
        let samples = self.sampler.batch(step);
        self.views_of(&samples, step)
    }

    /// The two views of `samples`, which belong to step `step`, each `[samples, 3, size, size]`. A view
    /// depends on its sample and not on its position, so the views of a chunk are those of the whole
    /// batch.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
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
}

impl<M: Module> Objective<M> for SimClr {
    /// The mean NT-Xent loss over the 2B views.
    fn loss(&mut self, module: &M, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.sampler.batch(step);
        let z = self.rows(module, tape, &samples, step)?;
        PartialObjective::<M>::score(self, &z, &samples)
    }
}

impl<M: Module> PartialObjective<M> for SimClr {
    const IS_MEAN: bool = false;

    fn samples(&mut self, step: u64) -> Vec<u32> {
        self.sampler.batch(step)
    }

    /// The projections `[2B, D]` of both views of `samples`, first views above second views.
    fn rows(&self, module: &M, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        let [first, second] = self.views_of(samples, step)?;
        if self.settings.separate_passes {
            let first = module.forward(&tape.constant(&first))?;
            first.concat(&module.forward(&tape.constant(&second))?)
        } else {
            let (a, b) = (&first, &second);
            let views = self.device.run(Concat { a, b })?;
            drop([first, second]);
            module.forward(&tape.constant(&views))
        }
    }

    /// The mean NT-Xent loss of projections `z [2B, D]`.
    fn score(&self, z: &Var, _: &[u32]) -> Result<Var> {
        z.l2_normalize(1e-12)?.nt_xent(self.settings.temperature)
    }
}
