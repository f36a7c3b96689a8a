//! RotNet (Gidaris, Singh and Komodakis 2018): an image is turned by 0, 90, 180 and 270 degrees, and the network tells
//! by which.

use super::Protocol;
use crate::augment::{CIFAR10_STATISTICS, ImageStore, PaddedCropAugmentation, ViewKey};
use crate::autograd::{self, Gradients, Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::{Device, upload_u32};
use crate::error::{Error, Result};
use crate::nn::{Head, Mode, Parameter, ResNet, ResNetConfig, Stem};
use crate::optim::{Optimization, OptimizerOptions};
use crate::tensor::Tensor;
use crate::train::{Objective, Tapes, micro_batch, whole_batch};

/// The quarter turns that are told apart, the class being their number.
pub const ROTATIONS: usize = 4;

/// What a pretraining is.
#[derive(Clone, Debug)]
pub struct RotNetSettings {
    pub encoder: ResNetConfig,
    /// Images a step; each is seen under all four rotations, so that the network sees four times as many.
    pub batch_size: usize,
    /// Images that pass the encoder at a time, each under all four rotations, where the batch does not fit in memory.
    /// See [`micro_batch`] for what stays exact.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    /// What happens to an image before it is turned: the same for its four rotations.
    pub augmentation: PaddedCropAugmentation,
    pub seed: u64,
}

impl RotNetSettings {
    /// The settings of `protocol`: SGD with Nesterov momentum 0.9, rate 0.01. The paper's code has the ImageNet stem
    /// (1/15 of the work on 32 x 32 images) and borders that give the rotation away.
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
            seed,
        }
    }

    /// Fails where a batch of images of `side` pixels cannot be cut into chunks of `micro_batch` images.
    ///
    /// # Errors
    /// As [`micro_batch::check`].
    pub fn check_micro_batch(&self, side: usize) -> Result<()> {
        micro_batch::check(
            self.batch_size,
            self.micro_batch,
            &self.encoder.shape()?,
            side,
            ROTATIONS,
        )
    }
}

/// The objective: an encoder, a head of four classes, and the images that they learn from.
pub struct RotNet {
    device: Device,
    settings: RotNetSettings,
    pub encoder: ResNet,
    pub head: Head,
    /// How batch norm behaves: in training mode, unless somebody wants gradients that do not depend on how the batch is
    /// cut.
    pub mode: Mode,
    images: ImageStore,
    sampler: EpochSampler,
}

impl RotNet {
    /// Draws the weights and puts the images of `split` on `device`.
    ///
    /// # Errors
    /// `Error::Usage` for a batch that is empty or larger than the split or cannot be cut into its chunks, or images
    /// that are not square.
    pub fn new(device: &Device, settings: RotNetSettings, split: &Split) -> Result<Self> {
        check_square(split)?;
        settings.check_micro_batch(split.height)?;
        let sampler = EpochSampler::new(split.len(), settings.batch_size, settings.seed)?;
        let encoder = ResNet::new(device, &settings.encoder, settings.seed)?;
        let head = Head::new(device, encoder.feature_width(), ROTATIONS, settings.seed)?;
        Ok(RotNet {
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            device: device.clone(),
            settings,
            encoder,
            head,
            mode: Mode::Training,
            sampler,
        })
    }

    /// Step `step`'s images under all rotations, `[4B, 3, H, W]`: all upright ones first, then all turned once.
    pub fn rotated_batch(&mut self, step: u64) -> Result<Tensor> {
        let samples = self.sampler.batch(step);
        self.rotated(&samples, step)
    }

    /// As [`RotNet::rotated_batch`], of `samples`, which belong to step `step`.
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
        rotations(&self.device, &cropped)
    }

    /// Logits `[N, 4]` of normalised images.
    pub fn logits(&self, tape: &Tape, images: &Tensor, mode: Mode) -> Result<Var> {
        let features = self.encoder.forward(tape, &tape.constant(images), mode)?;
        self.head.forward(tape, &features)
    }

    /// The mean cross-entropy of `samples` under all rotations.
    fn loss_of(&self, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        let images = self.rotated(samples, step)?;
        let logits = self.logits(tape, &images, self.mode)?;
        let labels = rotation_labels(samples.len());
        let labels = upload_u32(&self.device, &labels, &[labels.len()])?;
        autograd::softmax_cross_entropy(tape, &logits, &labels)
    }
}

impl Objective for RotNet {
    /// The mean cross-entropy over the 4B turned images.
    fn loss(&mut self, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.sampler.batch(step);
        self.loss_of(tape, &samples, step)
    }

    fn gradients(&mut self, tapes: &Tapes, step: u64) -> Result<(Tensor, Gradients)> {
        let RotNetSettings {
            batch_size,
            micro_batch,
            ..
        } = self.settings;
        let Some(images) = micro_batch::in_parts(batch_size, micro_batch) else {
            return whole_batch(self, tapes, step);
        };
        let samples = self.sampler.batch(step);
        micro_batch::accumulated(tapes, batch_size, images, |tape, chunk| {
            self.loss_of(tape, &samples[chunk], step)
        })
    }

    fn encoder(&self) -> &ResNet {
        &self.encoder
    }

    fn parameters(&self) -> Vec<&Parameter> {
        let mut all = self.encoder.parameters();
        all.extend(self.head.parameters());
        all
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
        "the images have {} x {} pixels; RotNet turns images by 90 degrees and needs square ones: --size N makes them \
         N x N",
        split.width, split.height
    )))
}

/// The quarter turns of a batch of `images` images under all rotations, in the order of [`rotations`].
pub fn rotation_labels(images: usize) -> Vec<u32> {
    (0..ROTATIONS as u32)
        .flat_map(|turns| std::iter::repeat_n(turns, images))
        .collect()
}

/// `images [B, 3, H, H]`, in [0, 1], turned by 0 to 3 quarters counter-clockwise and normalised: `[4B, 3, H, H]`.
pub fn rotations(device: &Device, images: &Tensor) -> Result<Tensor> {
    let count = images.shape()[0];
    let pair = device.concat(images, images)?;
    let all = device.concat(&pair, &pair)?;
    let turned = device.rotate90(&all, &rotation_labels(count))?;
    let (mean, std) = CIFAR10_STATISTICS;
    device.normalize(&turned, mean, std)
}
