//! Features of a whole split, computed by an encoder in evaluation mode.

use super::partial;
use crate::augment::ImageStore;
use crate::autograd::{PassOptions, Tape};
use crate::data::{Split, batches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Linear, Module, Normalization, ResNet};
use crate::ops::l2_normalize::L2Normalize;
use crate::ops::resized_crop::{ResizedCrop, ResizedCrops};
use crate::tensor::Tensor;

/// Images per forward pass.
const BATCH: u32 = 128;
/// Number of batches whose mean gives the running statistics of an untrained encoder.
const STATISTICS_BATCHES: usize = 10;

/// Computes the features of all images of `split`, in order, row-major `[N, F]`. Images are resized
/// to `resolution` x `resolution` if their height differs, and normalised as the encoder requires
/// ([`ResNet::normalization`]). They are not augmented.
///
/// # Errors
/// As [`partial::complete_in_group`].
pub fn features(
    device: &Device,
    encoder: &ResNet,
    split: &Split,
    resolution: usize,
) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(split.len() * encoder.feature_width());
    complete_features(device, encoder, split, resolution, &mut all)?;
    Ok(all)
}

/// As [`features`], but appends the features that `values` lacks.
///
/// # Errors
/// As [`partial::complete_in_group`].
pub fn complete_features(
    device: &Device,
    encoder: &ResNet,
    split: &Split,
    resolution: usize,
    values: &mut Vec<f32>,
) -> Result<()> {
    let (width, input) = (
        encoder.feature_width(),
        (resolution, encoder.normalization()),
    );
    complete(device, (split, input), width, values, |images| {
        evaluate(device, encoder, images)
    })
}

/// Returns the features `[N, F]` of every image of `split`, in order, each normalised to length 1.
/// `values` holds the features of the first images if they are already computed, also normalised.
/// Otherwise as [`complete_features`].
pub fn unit_features(
    device: &Device,
    encoder: &ResNet,
    (split, resolution): (&Split, usize),
    values: &mut Vec<f32>,
) -> Result<Tensor> {
    let (width, input) = (
        encoder.feature_width(),
        (resolution, encoder.normalization()),
    );
    complete(device, (split, input), width, values, |images| {
        let (x, eps) = (&evaluate(device, encoder, images)?, 1e-12);
        Ok(device.run(L2Normalize { x, eps })?.y)
    })?;
    Tensor::from_slice(values, &[split.len(), width], device)
}

/// Sets the running statistics of an untrained encoder to the mean over the first ten batches of
/// `split`.
pub fn set_running_statistics(device: &Device, encoder: &ResNet, split: &Split) -> Result<()> {
    let store = ImageStore::of(device, split)?;
    let all = batches(split.len() as u32, BATCH).take(STATISTICS_BATCHES);
    for (before, indices) in all.enumerate() {
        let images = store.gather_in_order(&indices)?;
        let images = encoder.normalization().apply(device, &images)?;
        // With this momentum, the running statistics are the mean over the batches so far.
        let options = PassOptions {
            momentum: 1.0 / (before as f32 + 1.0),
            ..PassOptions::default()
        };
        let tape = Tape::forward_only(device, options);
        encoder.forward(&tape.constant(&images))?;
        for update in tape.take_buffer_updates() {
            update.apply(device, None)?;
        }
    }
    Ok(())
}

/// The output of `module` for normalised images, in evaluation mode.
pub(super) fn evaluate(device: &Device, module: &impl Module, images: &Tensor) -> Result<Tensor> {
    let y = module.forward(&Tape::inference(device).constant(images))?;
    Ok(y.tensor().clone())
}

/// Computes the logits of `split` by an encoder and its classifier in evaluation mode, row-major
/// `[N, classes]`, and appends those that `values` lacks.
///
/// # Errors
/// As [`partial::complete_in_group`].
pub fn logits(
    device: &Device,
    (encoder, head): (&ResNet, &Linear),
    classes: usize,
    split: &Split,
    values: &mut Vec<f32>,
) -> Result<()> {
    let input = (split.height, encoder.normalization());
    complete(device, (split, input), classes, values, |images| {
        evaluate(device, &(encoder, head), images)
    })
}

/// Appends the results of `compute` for the batches of `split` that `values` lacks: `width` numbers
/// per image. The images are resized to `resolution` x `resolution` if their height differs, and
/// normalised.
///
/// # Errors
/// `Error::NonFinite` that names the first image with a result that is not finite; otherwise as
/// [`partial::complete_in_group`].
pub(super) fn complete(
    device: &Device,
    (split, (resolution, normalization)): (&Split, (usize, Normalization)),
    width: usize,
    values: &mut Vec<f32>,
    compute: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let store = ImageStore::of(device, split)?;
    let total = split.len();
    partial::complete_in_group(values, (total, BATCH), width, |_, indices| {
        let mut images = store.gather_in_order(indices)?;
        if resolution != split.height {
            let whole = |image| ResizedCrop {
                image,
                top: 0,
                left: 0,
                height: split.height as u32,
                width: split.width as u32,
                flip: 0,
            };
            let crops: Vec<_> = (0..indices.len() as u32).map(whole).collect();
            images = device.run(ResizedCrops {
                x: &images,
                crops: &crops,
                size: resolution,
            })?;
        }
        let values = compute(&normalization.apply(device, &images)?)?.to_vec::<f32>()?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => {
                let image = indices[place / width] as usize;
                let file = split.files.get(image);
                let file = file.map_or(String::new(), |file| format!(" ({file})"));
                Err(Error::NonFinite(format!(
                    "the network gives {} for image {} of {total}{file}, which is no finite number; use other weights",
                    values[place],
                    image + 1
                )))
            }
        }
    })
}
