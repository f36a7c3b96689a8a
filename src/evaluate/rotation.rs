//! How often RotNet's own question is answered right.

use super::metrics::{accuracy, predictions};
use crate::augment::ImageStore;
use crate::autograd::Tape;
use crate::data::{Split, batches};
use crate::device::{Device, read_f32};
use crate::error::Result;
use crate::nn::Mode;
use crate::pretext::rotnet::{ROTATIONS, RotNet, rotation_labels, rotations};

/// Images of one forward pass; each is seen four times.
const BATCH: u32 = 64;

/// The part of `split`'s images under all four rotations whose rotation is told right, in evaluation mode and without
/// augmentation.
pub fn rotation_accuracy(device: &Device, network: &RotNet, split: &Split) -> Result<f64> {
    let store = ImageStore::new(device, &split.images, [3, split.height, split.width])?;
    let (mut found, mut turns) = (Vec::new(), Vec::new());
    for indices in batches(split.len() as u32, BATCH) {
        let turned = rotations(device, &store.gather(&indices)?)?;
        let tape = Tape::inference(device);
        let logits = network.logits(&tape, &turned, Mode::Evaluation)?;
        let logits = read_f32(device, logits.tensor())?;
        found.extend(predictions(&logits, ROTATIONS));
        turns.extend(rotation_labels(indices.len()));
    }
    Ok(accuracy(&found, &turns))
}
