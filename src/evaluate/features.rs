//! An encoder's features of a whole split, in evaluation mode.

use super::partial;
use crate::augment::{CIFAR10_STATISTICS, ImageStore};
use crate::autograd::Tape;
use crate::data::{Split, batches};
use crate::device::kernels::ResizedCrop;
use crate::device::{Device, read_f32, upload_f32};
use crate::error::Result;
use crate::nn::{Mode, ResNet};
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
    (split, resolution): (&Split, usize),
    values: &mut Vec<f32>,
) -> Result<Tensor> {
    let width = encoder.feature_width();
    complete(device, (split, resolution), width, values, |images| {
        let features = encode(device, encoder, images)?;
        Ok(device.l2_normalize(&features, 1e-12)?.y)
    })?;
    upload_f32(device, values, &[split.len(), width])
}

/// Sets the running statistics of an untrained encoder to the mean over the first ten batches of
/// `split`.
pub fn set_running_statistics(device: &Device, encoder: &ResNet, split: &Split) -> Result<()> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    let all = batches(split.len() as u32, BATCH).take(STATISTICS_BATCHES);
    for (before, indices) in all.enumerate() {
        let images = normalized(device, &store.gather(&indices)?)?;
        let tape = Tape::inference(device);
        encoder.forward(&tape, &tape.constant(&images), Mode::Training)?;
        encoder.average_running_statistics(before)?;
    }
    Ok(())
}

/// Features `[B, F]` of normalised images, in evaluation mode.
pub(super) fn encode(device: &Device, encoder: &ResNet, images: &Tensor) -> Result<Tensor> {
    let tape = Tape::inference(device);
    let y = encoder.forward(&tape, &tape.constant(images), Mode::Evaluation)?;
    Ok(y.tensor().clone())
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
            images = device.resized_crop(&images, &crops, resolution)?;
        }
        read_f32(device, &compute(&normalized(device, &images)?)?)
    })
}

pub(super) fn normalized(device: &Device, images: &Tensor) -> Result<Tensor> {
    let (mean, std) = CIFAR10_STATISTICS;
    device.normalize(images, mean, std)
}
