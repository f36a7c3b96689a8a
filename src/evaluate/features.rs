//! An encoder's features of a whole split, in evaluation mode.

use crate::augment::{CIFAR10_STATISTICS, ImageStore};
use crate::autograd::Tape;
use crate::data::{Split, batches};
use crate::device::{Device, read_f32, upload_f32};
use crate::error::Result;
use crate::nn::{Mode, ResNet};

/// Images of one forward pass.
const BATCH: u32 = 128;
/// Batches that an untrained encoder's running statistics are the mean of.
const STATISTICS_BATCHES: usize = 10;

/// The features of every image of `split`, in order, each of length 1: `[N, F]`. Pixels are normalised by CIFAR-10's mean
/// and standard deviation and not augmented; the last partial batch is kept.
pub fn unit_features(device: &Device, encoder: &ResNet, split: &Split) -> Result<crate::Tensor> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    let mut features = Vec::with_capacity(split.len() * encoder.feature_width());
    for indices in batches(split.len() as u32, BATCH) {
        let images = normalized(device, &store, &indices)?;
        let tape = Tape::inference(device);
        let y = encoder.forward(&tape, &tape.constant(&images), Mode::Evaluation)?;
        let unit = device.l2_normalize(y.tensor(), 1e-12)?.y;
        features.extend(read_f32(device, &unit)?);
    }
    upload_f32(device, &features, &[split.len(), encoder.feature_width()])
}

/// Sets the running statistics of an encoder that was never trained to the mean over its first ten batches.
pub fn set_running_statistics(device: &Device, encoder: &ResNet, split: &Split) -> Result<()> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    let all = batches(split.len() as u32, BATCH).take(STATISTICS_BATCHES);
    for (before, indices) in all.enumerate() {
        let images = normalized(device, &store, &indices)?;
        let tape = Tape::inference(device);
        encoder.forward(&tape, &tape.constant(&images), Mode::Training)?;
        encoder.average_running_statistics(before)?;
    }
    Ok(())
}

fn normalized(device: &Device, store: &ImageStore, indices: &[u32]) -> Result<crate::Tensor> {
    let (mean, std) = CIFAR10_STATISTICS;
    device.normalize(&store.gather(indices)?, mean, std)
}
