//! Supervised training of an encoder and a linear head: the baseline from scratch, and the
//! fine-tuning of a pretrained encoder on a fraction of the labels.

use crate::augment::{ImageStore, PaddedCropAugmentation, ViewKey};
use crate::autograd::{Mode, Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Module, Normalization, ResNetShape};
use crate::optim::Optimization;
use crate::tensor::Tensor;
use crate::train::{Objective, PartialObjective, micro_batch};

/// The settings of a supervised training.
#[derive(Clone, Debug)]
pub struct ClassifierSettings {
    /// Images per step, at most the number of labelled images.
    pub batch_size: usize,
    /// Images that the encoder processes at a time, if the batch does not fit in memory. See
    /// [`micro_batch`] for its effect on gradients.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    pub augmentation: PaddedCropAugmentation,
    /// How the training images are normalised. The encoder, which is evaluated with a normalisation
    /// of its own, should have the same one.
    pub normalization: Normalization,
    /// Whether batch norm is in evaluation mode from the second epoch on. The released code of the
    /// paper does this: it validates after each epoch and does not switch back to training mode.
    pub frozen_after_first_epoch: bool,
    pub seed: u64,
}

/// The cross-entropy of labelled images, for a module that maps images to logits.
pub struct Classifier {
    device: Device,
    settings: ClassifierSettings,
    images: ImageStore,
    labels: Vec<u32>,
    /// The training images, as indices into the split.
    members: Vec<u32>,
    sampler: EpochSampler,
}

impl Classifier {
    /// Copies the images of `split` to `device` if they are held. The module is trained on the images
    /// with the indices `members`. `encoder` is needed to check the micro-batch.
    ///
    /// # Errors
    /// `Error::Usage` if the split has no labels, or if the batch is empty, larger than `members`,
    /// or cannot be split into micro-batches.
    pub fn new(
        settings: ClassifierSettings,
        encoder: &ResNetShape,
        split: &Split,
        members: Vec<u32>,
        device: &Device,
    ) -> Result<Self> {
        let Some(labels) = split.labels.clone() else {
            return Err(Error::usage(
                "the training images have no labels; a classifier needs them",
            ));
        };
        let (batch_size, chunk) = (settings.batch_size, settings.micro_batch);
        micro_batch::check(batch_size, chunk, encoder, split.height, 1)?;
        Ok(Classifier {
            images: ImageStore::of(device, split)?,
            sampler: EpochSampler::new(members.len(), batch_size, settings.seed)?,
            device: device.clone(),
            settings,
            labels,
            members,
        })
    }

    /// Steps per epoch. The last partial batch is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch() as u64
    }
}

impl<M: Module> Objective<M> for Classifier {
    /// The mean cross-entropy over the batch.
    fn loss(&mut self, module: &M, tape: &Tape, step: u64) -> Result<Var> {
        let samples = PartialObjective::<M>::samples(self, step);
        let logits = self.rows(module, tape, &samples, step)?;
        PartialObjective::<M>::score(self, &logits, &samples)
    }
}

impl<M: Module> PartialObjective<M> for Classifier {
    const IS_MEAN: bool = true;

    fn samples(&mut self, step: u64) -> Vec<u32> {
        let (sampler, members) = (&mut self.sampler, &self.members);
        let mut batch = |step| -> Vec<u32> {
            let batch = sampler.batch(step).into_iter();
            batch.map(|i| members[i as usize]).collect()
        };
        self.images.read_ahead(step, &mut batch);
        batch(step)
    }

    /// Logits `[B, classes]` of the augmented images.
    fn rows(&self, module: &M, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        let key = ViewKey {
            seed: self.settings.seed,
            step: step as u32,
            view: 0,
        };
        let augmentation = &self.settings.augmentation;
        let images = self.images.gather(samples)?;
        let crops = augmentation.draw(key, samples);
        let images = augmentation.apply(&self.device, &images, &crops)?;
        let images = self.settings.normalization.apply(&self.device, &images)?;
        let is_frozen = self.settings.frozen_after_first_epoch && step >= self.steps_per_epoch();
        let tape = if is_frozen {
            tape.in_mode(Mode::Evaluation)
        } else {
            tape.clone()
        };
        module.forward(&tape.constant(&images))
    }

    fn score(&self, logits: &Var, samples: &[u32]) -> Result<Var> {
        let labels: Vec<u32> = samples.iter().map(|&i| self.labels[i as usize]).collect();
        let labels = Tensor::from_slice(&labels, &[labels.len()], &self.device)?;
        logits.cross_entropy(&labels)
    }
}
