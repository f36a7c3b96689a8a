//! Linear evaluation: a linear layer is trained on the features of a frozen encoder. The encoder's batch norms are in
//! evaluation mode, and its parameters and buffers are hashed before and after.

use super::features::{complete_features, encode, normalized};
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

/// How the linear layer is trained.
#[derive(Clone, Debug)]
pub struct LinearSettings {
    pub epochs: u64,
    /// Images a step; all of them where there are fewer.
    pub batch_size: usize,
    pub optimization: Optimization,
    /// Where set, features are computed anew in each step, of images that were cropped and mirrored at random. Where
    /// not, they are computed once, which is the same since neither encoder nor images change.
    pub augmentation: Option<PaddedCropAugmentation>,
    /// Side in pixels to which images are resized before the encoder sees them.
    pub resolution: usize,
    pub seed: u64,
}

impl LinearSettings {
    /// Steps over all epochs of `images` images, the last partial batch of each dropped.
    pub fn steps(&self, images: usize) -> u64 {
        self.epochs * (images / self.batch_size.clamp(1, images.max(1))) as u64
    }
}

/// Runs `body`, which must leave `encoder` as it is.
///
/// # Errors
/// Those of `body`; `Error::Guard` where a parameter or a running statistic of the encoder has changed.
pub fn with_frozen<R>(encoder: &ResNet, body: impl FnOnce() -> Result<R>) -> Result<R> {
    let before = digest(&encoder.state())?;
    let result = body()?;
    let after = digest(&encoder.state())?;
    if before != after {
        return Err(Error::Guard(format!(
            "the encoder changed during an evaluation that must leave it frozen: the SHA-256 of its parameters and \
             running statistics was {before} before and is {after} after; keep batch norm in evaluation mode and the \
             encoder out of the optimiser"
        )));
    }
    Ok(result)
}

/// The name of the training images' features in [`Partial`]. Parameters and the optimiser's state
/// are stored under their own names.
const FEATURES: &str = "train features";
/// The name of the steps' losses in [`Partial`].
const LOSSES: &str = "losses";

/// Where a step's features come from.
enum Source {
    Cached(Vec<f32>),
    Augmented {
        images: ImageStore,
        augmentation: PaddedCropAugmentation,
    },
}

/// A head of `classes` classes trained on `members` of `split`, with the mean loss of its last
/// epoch. The encoder is used in evaluation mode and does not change. `partial` holds the values
/// computed so far: the features, the state of the training, and the loss of each step (0 before
/// the last epoch, because only the last epoch's losses are read).
///
/// # Errors
/// `Error::Usage` if the split has no labels, there are no members, or images would have to be both
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
        // Nothing is left to train.
        None if first == steps => Source::Cached(Vec::new()),
        None => {
            let chosen = split.subset(members);
            let values = partial.entry(FEATURES.to_string()).or_default();
            complete_features(device, encoder, &chosen, settings.resolution, values)?;
            Source::Cached(std::mem::take(values))
        }
        Some(_) if settings.resolution != split.height => {
            return Err(Error::usage(
                "augmented linear evaluation works at the images' own resolution; leave one of the two out",
            ));
        }
        Some(augmentation) => Source::Augmented {
            images: ImageStore::new(device, &split.images, [3, split.height, split.width])?,
            augmentation,
        },
    };
    let mut last_epoch = Vec::new();
    let mut stopped = Ok(());
    for step in first..steps {
        let places = sampler.batch(step);
        let samples: Vec<u32> = places.iter().map(|&p| members[p as usize]).collect();
        let x = match &source {
            Source::Cached(all) => {
                let rows: Vec<f32> = places
                    .iter()
                    .flat_map(|&p| &all[p as usize * width..][..width])
                    .copied()
                    .collect();
                Tensor::from_slice(&rows, &[places.len(), width], device)?
            }
            Source::Augmented {
                images,
                augmentation,
            } => augmented(
                device,
                encoder,
                images,
                augmentation,
                &samples,
                step,
                settings.seed,
            )?,
        };
        let wanted: Vec<u32> = samples.iter().map(|&i| labels[i as usize]).collect();
        let wanted = Tensor::from_slice(&wanted, &[wanted.len()], device)?;
        let tape = Tape::new(device);
        let loss = head.forward(&tape.constant(&x))?.cross_entropy(&wanted)?;
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

/// Loads the `state` of a training from `partial`, and returns the losses of the steps taken so
/// far. If `partial` has no complete state, the training starts over.
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

fn augmented(
    device: &Device,
    encoder: &ResNet,
    images: &ImageStore,
    augmentation: &PaddedCropAugmentation,
    samples: &[u32],
    step: u64,
    seed: u64,
) -> Result<Tensor> {
    let key = ViewKey {
        seed,
        step: step as u32,
        view: 0,
    };
    let crops = augmentation.draw(key, samples);
    let cropped = augmentation.apply(device, &images.gather(samples)?, &crops)?;
    encode(device, encoder, &normalized(device, &cropped)?)
}
