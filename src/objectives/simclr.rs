//! SimCLR (Chen et al. 2020): two random views of each image, an encoder, a projector, NT-Xent.

use super::Protocol;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::autograd::{Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Module, Normalization, Projector, ResNet, ResNetConfig, Stem};
use crate::ops::copy::Concat;
use crate::optim::{Optimization, OptimizerOptions};
use crate::tensor::Tensor;
use crate::train::{Objective, PartialObjective, micro_batch};

/// The settings of a SimCLR pretraining.
#[derive(Clone, Debug)]
pub struct SimClrSettings {
    pub encoder: ResNetConfig,
    /// Images per step, each with two views.
    pub batch_size: usize,
    /// Images that the encoder processes at a time, if the batch does not fit in memory. The loss
    /// still contrasts all pairs of the batch. See [`micro_batch`] for its effect on gradients.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    pub temperature: f32,
    pub augmentation: SimClrAugmentation,
    /// How images are normalised in the encoder's evaluations. `augmentation` has the normalisation
    /// of the views, because the code of the reproduced paper does not normalise views.
    pub normalization: Normalization,
    /// Whether the first and the second views are separate passes, with separate batch statistics.
    pub separate_passes: bool,
    pub seed: u64,
}

impl SimClrSettings {
    /// The settings of `protocol` for views of `size` x `size` pixels. The text of the reproduced
    /// paper has a weight decay, but its code does not apply it, so [`Protocol::Paper`] ignores
    /// `weight_decay`.
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
            normalization: Normalization::default(),
            separate_passes: is_paper,
            seed,
        }
    }

    /// The same settings with this normalisation of evaluated images, and of the views if they are
    /// normalised.
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        if self.augmentation.normalize.is_some() {
            self.augmentation.normalize = normalization.statistics();
        }
        self
    }

    /// Checks the micro-batch.
    ///
    /// # Errors
    /// As [`micro_batch::check`].
    pub fn check_micro_batch(&self) -> Result<()> {
        let views = if self.separate_passes { 1 } else { 2 };
        let (encoder, side) = (self.encoder.shape()?, self.augmentation.size);
        micro_batch::check(self.batch_size, self.micro_batch, &encoder, side, views)
    }
}

/// The network of a pretraining: an encoder and its projector.
pub type SimClrNetwork = (ResNet, Projector);

/// Creates the network of a pretraining with random weights.
///
/// # Errors
/// `Error::Usage` if the configuration is not valid; `Error::Device` if memory is short.
pub fn network(settings: &SimClrSettings, device: &Device) -> Result<SimClrNetwork> {
    let encoder = ResNet::new(&settings.encoder, settings.seed, device)?
        .with_normalization(settings.normalization);
    let projector = Projector::new(encoder.feature_width(), settings.seed, device)?;
    Ok((encoder, projector))
}

/// The NT-Xent loss over two views of each image, for a module that maps views to projections.
pub struct SimClr {
    device: Device,
    settings: SimClrSettings,
    images: ImageStore,
    sampler: EpochSampler,
}

impl SimClr {
    /// Copies the images of `split` to `device` if they are held.
    ///
    /// # Errors
    /// `Error::Usage` if the batch has fewer than two images, is larger than the split, or cannot
    /// be split into micro-batches.
    pub fn new(settings: SimClrSettings, split: &Split, device: &Device) -> Result<Self> {
        if settings.batch_size < 2 {
            return Err(Error::usage(format!(
                "the batch size is {}; SimCLR contrasts images with each other, so use 2 or more",
                settings.batch_size
            )));
        }
        settings.check_micro_batch()?;
        Ok(SimClr {
            sampler: EpochSampler::new(split.len(), settings.batch_size, settings.seed)?,
            images: ImageStore::of(device, split)?,
            device: device.clone(),
            settings,
        })
    }

    /// The two views of the images of step `step`, each `[B, 3, size, size]`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn views(&mut self, step: u64) -> Result<[Tensor; 2]> {
        let samples = self.sampler.batch(step);
        self.views_of(&samples, step)
    }

    /// The two views of some samples of step `step`, each `[samples, 3, size, size]`. A view does
    /// not depend on the position of its sample, so a chunk has the same views as the whole batch.
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
        let samples = PartialObjective::<M>::samples(self, step);
        let z = self.rows(module, tape, &samples, step)?;
        PartialObjective::<M>::score(self, &z, &samples)
    }
}

impl<M: Module> PartialObjective<M> for SimClr {
    const IS_MEAN: bool = false;

    fn samples(&mut self, step: u64) -> Vec<u32> {
        let sampler = &mut self.sampler;
        self.images.read_ahead(step, |step| sampler.batch(step));
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
