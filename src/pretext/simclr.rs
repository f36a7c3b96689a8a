//! SimCLR (Chen et al. 2020): two random views of each image, an encoder, a projector, NT-Xent.

use super::Protocol;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::autograd::{self, Gradients, Tape, Var};
use crate::data::{EpochSampler, Split};
use crate::device::{Device, Readback};
use crate::error::{Error, Result};
use crate::nn::{Mode, Parameter, Projector, ResNet, ResNetConfig, Stem};
use crate::optim::{Adam, AdamOptions, Schedule};
use crate::tensor::{DType, Tensor};

/// What a pretraining is.
#[derive(Clone, Debug)]
pub struct SimClrSettings {
    pub encoder: ResNetConfig,
    /// Images a step; each gives two views.
    pub batch_size: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// L2, added to the gradient.
    pub weight_decay: f32,
    pub temperature: f32,
    pub augmentation: SimClrAugmentation,
    /// Whether each view passes the encoder on its own, with batch statistics of its own.
    pub separate_passes: bool,
    pub seed: u64,
}

impl SimClrSettings {
    /// The settings of `protocol` for views of `size` pixels. `weight_decay` is what the paper's text asks for; its code
    /// does not apply it, nor does [`Protocol::Paper`].
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
            learning_rate: 1e-3,
            schedule: if is_paper {
                Schedule::StepDecay { every: 1000 }
            } else {
                Schedule::Constant
            },
            weight_decay: if is_paper { 0.0 } else { weight_decay },
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
}

/// A pretraining under way.
pub struct SimClr {
    device: Device,
    settings: SimClrSettings,
    pub encoder: ResNet,
    pub projector: Projector,
    optimizer: Adam,
    images: ImageStore,
    sampler: EpochSampler,
    /// u32 `[1]`: set by the first loss or gradient that is not finite. It shuts the optimiser and the running statistics
    /// from then on, so that the state stays that of the step before.
    flag: Tensor,
}

/// A step that was recorded, whose loss may not have been computed yet.
pub struct PendingStep {
    /// Counted from 0.
    pub step: u64,
    pub learning_rate: f32,
    loss: Readback,
    flag: Readback,
}

impl SimClr {
    /// Draws the weights and puts the images of `split` on `device`.
    ///
    /// # Errors
    /// `Error::Usage` for a batch that is larger than the split or has fewer than two images.
    pub fn new(device: &Device, settings: SimClrSettings, split: &Split) -> Result<Self> {
        if settings.batch_size < 2 {
            return Err(Error::usage(format!(
                "the batch size is {}; SimCLR contrasts images with each other and needs 2 or more",
                settings.batch_size
            )));
        }
        let sampler = EpochSampler::new(split.len(), settings.batch_size, settings.seed)?;
        let encoder = ResNet::new(device, &settings.encoder, settings.seed)?;
        let projector = Projector::new(device, encoder.feature_width(), settings.seed)?;
        let options = AdamOptions {
            weight_decay: settings.weight_decay,
            ..AdamOptions::default()
        };
        let optimizer = Adam::new(device, &parameters(&encoder, &projector), options)?;
        Ok(SimClr {
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            flag: device.zeros(&[1], DType::U32)?,
            device: device.clone(),
            settings,
            encoder,
            projector,
            optimizer,
            sampler,
        })
    }

    /// The two views of step `step`'s images, each `[B, 3, size, size]`.
    pub fn views(&mut self, step: u64) -> Result<[Tensor; 2]> {
        let samples = self.sampler.batch(step);
        let images = self.images.gather(&samples)?;
        let [_, height, width] = self.images.image_shape();
        let augmentation = &self.settings.augmentation;
        let view = |view: u32| {
            let key = ViewKey {
                seed: self.settings.seed,
                step: step as u32,
                view,
            };
            let parameters = augmentation.draw(key, &samples, height, width);
            augmentation.apply(&self.device, &images, &parameters)
        };
        Ok([view(0)?, view(1)?])
    }

    /// The mean NT-Xent loss over the 2B views, `[1]`.
    fn loss(&self, tape: &Tape, [first, second]: &[Tensor; 2]) -> Result<Var> {
        let encode = |x: &Tensor| {
            let features = self
                .encoder
                .forward(tape, &tape.constant(x), Mode::Training)?;
            self.projector.forward(tape, &features)
        };
        let z = if self.settings.separate_passes {
            autograd::concat(tape, &encode(first)?, &encode(second)?)?
        } else {
            encode(&self.device.concat(first, second)?)?
        };
        let z = autograd::l2_normalize(tape, &z, 1e-12)?;
        autograd::nt_xent(tape, &z, self.settings.temperature)
    }

    fn gradients(&self, tape: Tape, views: &[Tensor; 2]) -> Result<(Tensor, Gradients)> {
        let loss = self.loss(&tape, views)?;
        let gradients = tape.backward(&loss)?;
        Ok((loss.tensor().clone(), gradients))
    }

    /// Records step `step` (counted from 0) without waiting for it.
    pub fn step(&mut self, step: u64) -> Result<PendingStep> {
        let views = self.views(step)?;
        let (loss, gradients) = self.gradients(Tape::new(&self.device), &views)?;
        self.device.check_finite(&loss, &self.flag)?;
        for gradient in gradients.iter() {
            self.device.check_finite(gradient, &self.flag)?;
        }
        let rate = self.settings.schedule;
        let learning_rate = rate.learning_rate(self.settings.learning_rate, step);
        self.optimizer
            .step(learning_rate, &gradients, Some(&self.flag))?;
        self.encoder.commit_running_statistics(Some(&self.flag))?;
        let pending = PendingStep {
            step,
            learning_rate,
            loss: self.device.download(&loss)?,
            flag: self.device.download(&self.flag)?,
        };
        self.device.submit()?;
        Ok(pending)
    }

    /// Waits for a step's loss.
    ///
    /// # Errors
    /// `Error::NonFinite` where its loss or a gradient was not finite: the step is computed again from the same state and
    /// the same random numbers with a check after each operation, and the error names the first bad tensor.
    pub fn finish(&mut self, pending: PendingStep) -> Result<f32> {
        let is_finite = pending.flag.wait_u32()?.first() == Some(&0);
        let loss = pending.loss.wait_f32()?;
        match loss.first() {
            Some(&loss) if is_finite => Ok(loss),
            _ => Err(self.diagnose(pending.step)),
        }
    }

    fn diagnose(&mut self, step: u64) -> Error {
        let advice = "the weights are those of the step before; try a lower learning rate or a higher temperature";
        let replayed = self.views(step).and_then(|views| {
            self.encoder.discard_running_statistics();
            self.gradients(Tape::checked(&self.device), &views)
        });
        match replayed {
            Err(Error::NonFinite(what)) => {
                Error::NonFinite(format!("step {}: {what}; {advice}", step + 1))
            }
            Err(other) => other,
            Ok(_) => Error::NonFinite(format!(
                "step {}: the loss or a gradient is not finite, and every operation of its replay is; {advice}",
                step + 1
            )),
        }
    }

    /// Everything that is learned, then the encoder's running statistics.
    pub fn state(&self) -> Vec<&Parameter> {
        let mut state = parameters(&self.encoder, &self.projector);
        state.extend(self.encoder.buffers());
        state
    }
}

fn parameters<'a>(encoder: &'a ResNet, projector: &'a Projector) -> Vec<&'a Parameter> {
    let mut all = encoder.parameters();
    all.extend(projector.parameters());
    all
}
