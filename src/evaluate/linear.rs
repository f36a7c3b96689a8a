//! Linear evaluation: trains a linear layer on the features of a frozen encoder. The encoder is in
//! evaluation mode. Its parameters and buffers are hashed before and after, to check that they do
//! not change.

use super::features::{complete_features, evaluate};
use super::partial::Partial;
use crate::augment::{ImageStore, PaddedCropAugmentation, ViewKey};
use crate::autograd::Tape;
use crate::data::{EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::nn::weights::digest;
use crate::nn::{Linear, Module, Parameter, ResNet};
use crate::optim::{Optimization, Optimizer};
use crate::tensor::Tensor;

/// The settings of the training of the linear layer.
#[derive(Clone, Debug)]
pub struct LinearSettings {
    pub epochs: u64,
    /// Images per step, or all images if there are fewer.
    pub batch_size: usize,
    pub optimization: Optimization,
    /// If set, each step computes features of randomly cropped and mirrored images. If not,
    /// features are computed once, because neither encoder nor images change.
    pub augmentation: Option<PaddedCropAugmentation>,
    /// The side in pixels to which images are resized for the encoder.
    pub resolution: usize,
    pub seed: u64,
}

impl LinearSettings {
    /// The number of steps in all epochs of `images` images. The last partial batch of an epoch is
    /// dropped.
    pub fn steps(&self, images: usize) -> u64 {
        self.epochs * (images / self.batch_size.clamp(1, images.max(1))) as u64
    }
}

/// Runs `body` and checks that it does not change `encoder`.
///
/// # Errors
/// Those of `body`; `Error::Guard` if a parameter or a running statistic of the encoder has
/// changed.
pub fn with_frozen<R>(encoder: &ResNet, body: impl FnOnce() -> Result<R>) -> Result<R> {
    let before = digest(&encoder.state())?;
    let result = body()?;
    let after = digest(&encoder.state())?;
    if before != after {
        return Err(Error::Guard(format!(
            "the encoder changed during an evaluation that must keep it frozen: the SHA-256 of its parameters and \
             running statistics was {before} and is {after}; keep batch norm in evaluation mode and the encoder out \
             of the optimiser"
        )));
    }
    Ok(result)
}

/// The name in [`Partial`] of the features of the training images. Parameters and the state of the
/// optimiser are stored under their own names.
const FEATURES: &str = "train features";
/// The name in [`Partial`] of the losses of the steps.
const LOSSES: &str = "losses";

/// The source of the features of a step.
enum Source {
    Cached(Vec<f32>),
    Augmented {
        images: ImageStore,
        augmentation: PaddedCropAugmentation,
    },
}

/// Trains a head with `classes` classes on the images of `split` with the indices `members`.
/// Returns the head and its mean loss in the last epoch. The encoder is in evaluation mode and does
/// not change. `partial` holds the values computed so far: the features, the state of the training,
/// and the loss of each step. Losses before the last epoch are not read back and stored as 0.
///
/// # Errors
/// `Error::Usage` if the split has no labels, `members` is empty, or images would have to be both
/// resized and augmented; `Error::NonFinite` if the loss is not finite; `Error::Stopped` between
/// two batches or steps if a stop is requested.
pub fn train_head(
    device: &Device,
    encoder: &ResNet,
    split: &Split,
    members: &[u32],
    classes: usize,
    settings: &LinearSettings,
    partial: &mut Partial,
) -> Result<(Linear, f64)> {
    let labels = split.labels.as_ref().ok_or_else(|| {
        Error::usage("the training images have no labels; linear evaluation needs them")
    })?;
    let width = encoder.feature_width();
    let batch_size = settings.batch_size.min(members.len());
    let mut sampler = EpochSampler::new(members.len(), batch_size, settings.seed)?;
    let head = Linear::new("fc", width, classes, settings.seed, device)?;
    let mut optimizer = Optimizer::new(&head.parameters(), settings.optimization.optimizer)?;
    let mut state = head.parameters();
    state.extend(optimizer.state());
    let state: Vec<Parameter> = state.into_iter().cloned().collect();
    let mut losses = restore(&state, partial)?;
    optimizer.resume_at(losses.len() as u32);
    let per_epoch = sampler.batches_per_epoch() as u64;
    let steps = settings.steps(members.len());
    let first = losses.len() as u64;
    let source = match settings.augmentation {
        // All steps are done.
        None if first == steps => Source::Cached(Vec::new()),
        None => {
            let chosen = split.subset(members);
            let values = partial.entry(FEATURES.to_string()).or_default();
            complete_features(device, encoder, &chosen, settings.resolution, values)?;
            Source::Cached(std::mem::take(values))
        }
        Some(_) if settings.resolution != split.height => {
            return Err(Error::usage(
                "linear evaluation cannot both augment and resize images; use one of the two",
            ));
        }
        Some(augmentation) => Source::Augmented {
            images: ImageStore::of(device, split)?,
            augmentation,
        },
    };
    let mut last_epoch = Vec::new();
    let mut stopped = Ok(());
    for step in first..steps {
        if let Source::Augmented { images, .. } = &source {
            images.read_ahead(step, |step| {
                let batch = sampler.batch(step).into_iter();
                batch.map(|i| members[i as usize]).collect()
            });
        }
        let batch = sampler.batch(step);
        let samples: Vec<u32> = batch.iter().map(|&i| members[i as usize]).collect();
        let x = match &source {
            Source::Cached(all) => {
                let row = |&i: &u32| &all[i as usize * width..][..width];
                let rows: Vec<f32> = batch.iter().flat_map(row).copied().collect();
                Tensor::from_slice(&rows, &[batch.len(), width], device)?
            }
            Source::Augmented {
                images,
                augmentation,
            } => {
                let key = ViewKey {
                    seed: settings.seed,
                    step: step as u32,
                    view: 0,
                };
                let crops = augmentation.draw(key, &samples);
                let images = augmentation.apply(device, &images.gather(&samples)?, &crops)?;
                let images = encoder.normalization().apply(device, &images)?;
                evaluate(device, encoder, &images)?
            }
        };
        let targets: Vec<u32> = samples.iter().map(|&i| labels[i as usize]).collect();
        let targets = Tensor::from_slice(&targets, &[targets.len()], device)?;
        let tape = Tape::new(device);
        let loss = head.forward(&tape.constant(&x))?.cross_entropy(&targets)?;
        let value = loss.tensor().clone();
        let gradients = loss.backward()?;
        let rate = settings.optimization.rate(step);
        optimizer.step(rate, &gradients, None)?;
        if step + per_epoch >= steps {
            last_epoch.push(value.read()?);
        }
        device.submit()?;
        let done = step + 1;
        if done < steps {
            stopped =
                interrupt::check(|| format!("after step {done} of {steps} of the linear layer"));
        }
        if stopped.is_err() {
            break;
        }
    }
    let unread = (optimizer.steps() as usize).saturating_sub(losses.len() + last_epoch.len());
    losses.resize(losses.len() + unread, 0.0);
    for loss in last_epoch {
        losses.extend(loss.wait_as::<f32>()?);
    }
    for parameter in &state {
        partial.insert(parameter.name.clone(), parameter.value.to_vec::<f32>()?);
    }
    let last_epoch = &losses[losses.len().saturating_sub(per_epoch as usize)..];
    let sum: f64 = last_epoch.iter().map(|&loss| f64::from(loss)).sum();
    let mean = sum / last_epoch.len().max(1) as f64;
    partial.insert(LOSSES.to_string(), losses);
    match source {
        Source::Cached(features) if stopped.is_err() => {
            partial.insert(FEATURES.to_string(), features)
        }
        _ => partial.remove(FEATURES),
    };
    stopped?;
    if mean.is_finite() {
        Ok((head, mean))
    } else {
        Err(Error::NonFinite(format!(
            "the loss of the linear layer is {mean} in its last epoch; try a lower learning rate"
        )))
    }
}

/// Loads the `state` of a training from `partial`, and returns the losses of its finished steps. If
/// `partial` has no complete state, the training starts over.
fn restore(state: &[Parameter], partial: &mut Partial) -> Result<Vec<f32>> {
    let losses = partial.remove(LOSSES).unwrap_or_default();
    let fits = |p: &Parameter| partial.get(&p.name).map(Vec::len) == Some(p.value.len());
    if !state.iter().all(fits) {
        return Ok(Vec::new());
    }
    for parameter in state {
        parameter.value.overwrite(&partial[&parameter.name])?;
    }
    Ok(losses)
}
