//! RotNet (Gidaris, Singh and Komodakis 2018): images are rotated by 0, 90, 180 and 270 degrees,
//! and the network predicts the rotation.

use super::Protocol;
use crate::augment::{ImageStore, PaddedCropAugmentation, ViewKey};
use crate::autograd::{Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Linear, Module, Normalization, ResNet, ResNetConfig, Stem};
use crate::ops::copy::Concat;
use crate::ops::images::Rotate90;
use crate::optim::{Optimization, OptimizerOptions};
use crate::tensor::Tensor;
use crate::train::{Objective, PartialObjective, micro_batch};

/// The number of rotations. The class of an image is its number of quarter turns.
pub const ROTATIONS: usize = 4;

/// The settings of a RotNet pretraining.
#[derive(Clone, Debug)]
pub struct RotNetSettings {
    pub encoder: ResNetConfig,
    /// Images per step. The network processes each of them in all four rotations.
    pub batch_size: usize,
    /// Images that the encoder processes at a time, each in all four rotations, if the batch does
    /// not fit in memory. See [`micro_batch`] for its effect on gradients.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    /// The augmentation before the rotation, which is the same for all four rotations of an image.
    pub augmentation: PaddedCropAugmentation,
    /// How images are normalised, in the training and in the encoder's evaluations.
    pub normalization: Normalization,
    pub seed: u64,
}

impl RotNetSettings {
    /// The settings of `protocol`: SGD with Nesterov momentum 0.9 and a learning rate of 0.01. The
    /// paper's code has the ImageNet stem (1/15 of the FLOPs on 32 x 32 images) and crops whose
    /// borders reveal the rotation.
    pub fn of_protocol(
        protocol: Protocol,
        mut encoder: ResNetConfig,
        batch_size: usize,
        weight_decay: f32,
        seed: u64,
    ) -> Self {
        let (stem, augmentation) = match protocol {
            Protocol::Sound => (
                Stem::Cifar { padding: 1 },
                PaddedCropAugmentation::default(),
            ),
            Protocol::Paper => (Stem::ImageNet, PaddedCropAugmentation::paper_rotnet()),
        };
        encoder.stem = stem;
        RotNetSettings {
            encoder,
            batch_size,
            micro_batch: None,
            optimization: Optimization {
                optimizer: OptimizerOptions::nesterov(weight_decay),
                learning_rate: 0.01,
                schedule: protocol.schedule(),
            },
            augmentation,
            normalization: Normalization::default(),
            seed,
        }
    }

    /// Checks the micro-batch for images of `side` x `side` pixels.
    ///
    /// # Errors
    /// As [`micro_batch::check`].
    pub fn check_micro_batch(&self, side: usize) -> Result<()> {
        let (encoder, chunk) = (self.encoder.shape()?, self.micro_batch);
        micro_batch::check(self.batch_size, chunk, &encoder, side, ROTATIONS)
    }
}

/// The network of a pretraining: an encoder and a linear layer with four classes.
pub type RotNetNetwork = (ResNet, Linear);

/// Creates the network of a pretraining with random weights.
///
/// # Errors
/// `Error::Usage` if the configuration is not valid; `Error::Device` if memory is short.
pub fn network(settings: &RotNetSettings, device: &Device) -> Result<RotNetNetwork> {
    let encoder = ResNet::new(&settings.encoder, settings.seed, device)?
        .with_normalization(settings.normalization);
    let width = encoder.feature_width();
    let head = Linear::new("fc", width, ROTATIONS, settings.seed, device)?;
    Ok((encoder, head))
}

/// The cross-entropy of rotations, for a module that maps images to four logits.
pub struct RotNet {
    device: Device,
    settings: RotNetSettings,
    images: ImageStore,
    sampler: EpochSampler,
}

impl RotNet {
    /// Copies the images of `split` to `device` if they are held.
    ///
    /// # Errors
    /// `Error::Usage` if the batch is empty, larger than the split, or cannot be split into
    /// micro-batches, or if images are not square.
    pub fn new(settings: RotNetSettings, split: &Split, device: &Device) -> Result<Self> {
        check_square(split)?;
        settings.check_micro_batch(split.height)?;
        Ok(RotNet {
            sampler: EpochSampler::new(split.len(), settings.batch_size, settings.seed)?,
            images: ImageStore::of(device, split)?,
            device: device.clone(),
            settings,
        })
    }

    /// The images of step `step` in all rotations, `[4B, 3, H, W]`: first all images without
    /// rotation, then all images with one quarter turn, and so on.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn rotated_batch(&mut self, step: u64) -> Result<Tensor> {
        let samples = self.sampler.batch(step);
        self.rotated(&samples, step)
    }

    /// As [`RotNet::rotated_batch`], for some samples of step `step`.
    fn rotated(&self, samples: &[u32], step: u64) -> Result<Tensor> {
        let images = self.images.gather(samples)?;
        let key = ViewKey {
            seed: self.settings.seed,
            step: step as u32,
            view: 0,
        };
        let augmentation = &self.settings.augmentation;
        let crops = augmentation.draw(key, samples);
        let cropped = augmentation.apply(&self.device, &images, &crops)?;
        rotations(&self.device, &cropped, self.settings.normalization)
    }
}

impl<M: Module> Objective<M> for RotNet {
    /// The mean cross-entropy over the 4B rotated images.
    fn loss(&mut self, module: &M, tape: &Tape, step: u64) -> Result<Var> {
        let samples = PartialObjective::<M>::samples(self, step);
        let logits = self.rows(module, tape, &samples, step)?;
        PartialObjective::<M>::score(self, &logits, &samples)
    }
}

impl<M: Module> PartialObjective<M> for RotNet {
    const IS_MEAN: bool = true;

    fn samples(&mut self, step: u64) -> Vec<u32> {
        let sampler = &mut self.sampler;
        self.images.read_ahead(step, |step| sampler.batch(step));
        self.sampler.batch(step)
    }

    /// Logits `[4B, 4]` of `samples` in all rotations.
    fn rows(&self, module: &M, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        module.forward(&tape.constant(&self.rotated(samples, step)?))
    }

    fn score(&self, logits: &Var, samples: &[u32]) -> Result<Var> {
        let labels = rotation_labels(samples.len());
        let labels = Tensor::from_slice(&labels, &[labels.len()], &self.device)?;
        logits.cross_entropy(&labels)
    }
}

/// Fails unless the images of `split` are square.
///
/// # Errors
/// `Error::Usage` with their size.
pub fn check_square(split: &Split) -> Result<()> {
    if split.height == split.width {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the images have {} x {} pixels; RotNet rotates images by 90 degrees and needs square ones: --size N makes them \
         N x N",
        split.width, split.height
    )))
}

/// The classes of the results of [`rotations`] for `images` images.
pub fn rotation_labels(images: usize) -> Vec<u32> {
    (0..ROTATIONS as u32)
        .flat_map(|turns| std::iter::repeat_n(turns, images))
        .collect()
}

/// Rotates `images [B, 3, H, H]`, in [0, 1], by 0 to 3 quarter turns counter-clockwise and
/// normalises them: `[4B, 3, H, H]`.
pub fn rotations(device: &Device, images: &Tensor, normalization: Normalization) -> Result<Tensor> {
    let count = images.shape()[0];
    let twice = |x: &Tensor| device.run(Concat { a: x, b: x });
    let rotated = device.run(Rotate90 {
        x: &twice(&twice(images)?)?,
        quarter_turns: &rotation_labels(count),
    })?;
    normalization.apply(device, &rotated)
}
