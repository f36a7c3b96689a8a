//! Supervised training of an encoder and a linear head: the labelled baseline from scratch, and the fine-tuning of a
//! pretrained encoder on a fraction of the labels.

use crate::augment::{CIFAR10_STATISTICS, ImageStore, PaddedCropAugmentation, ViewKey};
use crate::autograd::{self, Gradients, Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::{Device, upload_u32};
use crate::error::{Error, Result};
use crate::nn::{Head, Mode, Parameter, ResNet};
use crate::optim::Optimization;
use crate::tensor::Tensor;
use crate::train::{Objective, Tapes, micro_batch, whole_batch};

use super::features::complete;

/// What a supervised training is.
#[derive(Clone, Debug)]
pub struct ClassifierSettings {
    /// Images a step, at most as many as there are labelled ones.
    pub batch_size: usize,
    /// Images that pass the encoder at a time, where the batch does not fit in memory. See [`micro_batch`] for what
    /// stays exact.
    pub micro_batch: Option<usize>,
    pub optimization: Optimization,
    pub augmentation: PaddedCropAugmentation,
    /// Whether batch norm is in evaluation mode from the second epoch on, as in the evaluated paper's code, where a
    /// validation pass ends each epoch and leaves the network so.
    pub frozen_after_first_epoch: bool,
    pub seed: u64,
}

/// The objective: an encoder, a head, and the labelled images that they learn from.
pub struct Classifier {
    device: Device,
    settings: ClassifierSettings,
    pub encoder: ResNet,
    pub head: Head,
    images: ImageStore,
    labels: Vec<u32>,
    /// The images that are used, as indices into the split.
    members: Vec<u32>,
    sampler: EpochSampler,
}

impl Classifier {
    /// A head of `classes` classes on `encoder`, to be trained with it on `members` of `split`.
    ///
    /// # Errors
    /// `Error::Usage` where the split has no labels, or the batch is empty, larger than the members or cannot be cut
    /// into its chunks.
    pub fn new(
        device: &Device,
        settings: ClassifierSettings,
        encoder: ResNet,
        classes: usize,
        split: &Split,
        members: Vec<u32>,
    ) -> Result<Self> {
        let Some(labels) = split.labels.clone() else {
            return Err(Error::usage(
                "the training images have no labels; a classifier needs them",
            ));
        };
        micro_batch::check(
            settings.batch_size,
            settings.micro_batch,
            encoder.shape(),
            split.height,
            1,
        )?;
        let head = Head::new(device, encoder.feature_width(), classes, settings.seed)?;
        Ok(Classifier {
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            sampler: EpochSampler::new(members.len(), settings.batch_size, settings.seed)?,
            device: device.clone(),
            settings,
            encoder,
            head,
            labels,
            members,
        })
    }

    /// Steps of one epoch: the last partial batch is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch() as u64
    }

    /// The images of step `step`, as indices into the split.
    fn samples(&mut self, step: u64) -> Vec<u32> {
        let places = self.sampler.batch(step);
        places
            .into_iter()
            .map(|place| self.members[place as usize])
            .collect()
    }

    /// The mean cross-entropy over `samples`, which belong to step `step`.
    fn loss_of(&self, tape: &Tape, samples: &[u32], step: u64) -> Result<Var> {
        let labels: Vec<u32> = samples.iter().map(|&i| self.labels[i as usize]).collect();
        let key = ViewKey {
            seed: self.settings.seed,
            step: step as u32,
            view: 0,
        };
        let augmentation = &self.settings.augmentation;
        let images = self.images.gather(samples)?;
        let crops = augmentation.draw(key, samples);
        let images = augmentation.apply(&self.device, &images, &crops)?;
        let (mean, std) = CIFAR10_STATISTICS;
        let images = self.device.normalize(&images, mean, std)?;
        let is_frozen = self.settings.frozen_after_first_epoch && step >= self.steps_per_epoch();
        let mode = if is_frozen {
            Mode::Evaluation
        } else {
            Mode::Training
        };
        let features = self.encoder.forward(tape, &tape.constant(&images), mode)?;
        let logits = self.head.forward(tape, &features)?;
        let labels = upload_u32(&self.device, &labels, &[labels.len()])?;
        autograd::softmax_cross_entropy(tape, &logits, &labels)
    }
}

impl Objective for Classifier {
    /// The mean cross-entropy over the batch.
    fn loss(&mut self, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.samples(step);
        self.loss_of(tape, &samples, step)
    }

    fn gradients(&mut self, tapes: &Tapes, step: u64) -> Result<(Tensor, Gradients)> {
        let ClassifierSettings {
            batch_size,
            micro_batch,
            ..
        } = self.settings;
        let Some(images) = micro_batch::in_parts(batch_size, micro_batch) else {
            return whole_batch(self, tapes, step);
        };
        let samples = self.samples(step);
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

/// Computes the logits of `split` in evaluation mode, row-major `[N, classes]`, and appends those
/// that `values` lacks.
///
/// # Errors
/// As [`super::partial::complete`].
pub fn logits(
    device: &Device,
    encoder: &ResNet,
    (head, classes): (&Head, usize),
    split: &Split,
    values: &mut Vec<f32>,
) -> Result<()> {
    complete(device, (split, split.height), classes, values, |images| {
        let tape = Tape::inference(device);
        let features = encoder.forward(&tape, &tape.constant(images), Mode::Evaluation)?;
        let logits = head.forward(&tape, &features)?;
        Ok(logits.tensor().clone())
    })
}
