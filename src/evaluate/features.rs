//! An encoder's features of a whole split, in evaluation mode.

use super::partial;
use crate::augment::{CIFAR10_STATISTICS, ImageStore};
use crate::autograd::{PassOptions, Tape};
use crate::data::{Split, batches};
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Module, ResNet};
use crate::ops::images::Normalize;
use crate::ops::l2_normalize::L2Normalize;
use crate::ops::resized_crop::{ResizedCrop, ResizedCrops};
use crate::tensor::Tensor;

/// Images of one forward pass.
const BATCH: u32 = 128;
/// Batches that an untrained encoder's running statistics are the mean of.
const STATISTICS_BATCHES: usize = 10;

/// The features of every image of `split`, in order, row-major `[N, F]`. Pixels are resized to `resolution` where they
/// have another size, normalised by CIFAR-10's mean and standard deviation, and not augmented; the last partial batch
/// is kept.
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

/// Appends to `values` the features that it lacks. Otherwise as [`features`].
///
/// # Errors
/// As [`partial::complete`].
pub fn complete_features(
    device: &Device,
    encoder: &ResNet,
    split: &Split,
    resolution: usize,
    values: &mut Vec<f32>,
) -> Result<()> {
    let width = encoder.feature_width();
    complete(device, (split, resolution), width, values, |images| {
        encode(device, encoder, images)
    })
}

/// Returns the features `[N, F]` of every image of `split`, in order, each normalised to length 1.
/// `values` holds the features of the first images if they are already computed, also normalised.
/// Otherwise as [`complete_features`].
pub fn unit_features(
    device: &Device,
    encoder: &ResNet,
    split: &Split,
    values: &mut Vec<f32>,
) -> Result<Tensor> {
    let width = encoder.feature_width();
    complete(device, (split, split.height), width, values, |images| {
        let features = encode(device, encoder, images)?;
        let (x, eps) = (&features, 1e-12);
        Ok(device.run(L2Normalize { x, eps })?.y)
    })?;
    Tensor::from_slice(values, &[split.len(), width], device)
}

/// Sets the running statistics of an untrained encoder to the mean over the first ten batches of
/// `split`.
pub fn set_running_statistics(device: &Device, encoder: &ResNet, split: &Split) -> Result<()> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    let all = batches(split.len() as u32, BATCH).take(STATISTICS_BATCHES);
    for (before, indices) in all.enumerate() {
        let images = normalized(device, &store.gather(&indices)?)?;
        // The running statistics become the plain mean over this batch and those before it.
        let options = PassOptions {
            momentum: 1.0 / (before as f32 + 1.0),
            ..PassOptions::default()
        };
        let tape = Tape::forward_only(device, options);
        encoder.forward(&tape.constant(&images))?;
        for update in tape.take_buffer_updates() {
            update(device, None)?;
        }
    }
    Ok(())
}

/// The output of `module` for normalised images, in evaluation mode.
fn evaluate(device: &Device, module: &impl Module, images: &Tensor) -> Result<Tensor> {
    let y = module.forward(&Tape::inference(device).constant(images))?;
    Ok(y.tensor().clone())
}

/// Computes the logits of `split` in evaluation mode, row-major `[N, classes]`, and appends those that
/// `values` lacks. `network` maps images to logits.
///
/// # Errors
/// As [`partial::complete`].
pub fn logits(
    device: &Device,
    network: &impl Module,
    classes: usize,
    split: &Split,
    values: &mut Vec<f32>,
) -> Result<()> {
    complete(device, (split, split.height), classes, values, |images| {
        evaluate(device, network, images)
    })
}

/// Features `[B, F]` of normalised images, in evaluation mode.
pub(super) fn encode(device: &Device, encoder: &ResNet, images: &Tensor) -> Result<Tensor> {
    evaluate(device, encoder, images)
}

/// Computes the batches of `split` that `values` lacks, and appends the result of `compute` for
/// each of them: `width` numbers per image. The images are normalised, and resized to `resolution`
/// x `resolution` if their height differs.
pub(super) fn complete(
    device: &Device,
    (split, resolution): (&Split, usize),
    width: usize,
    values: &mut Vec<f32>,
    compute: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    partial::complete(values, (split.len(), BATCH), width, |_, indices| {
        let mut images = store.gather(indices)?;
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
        compute(&normalized(device, &images)?)?.to_vec::<f32>()
    })
}

pub(super) fn normalized(device: &Device, images: &Tensor) -> Result<Tensor> {
    let (x, (mean, std)) = (images, CIFAR10_STATISTICS);
    device.run(Normalize { x, mean, std })
}
