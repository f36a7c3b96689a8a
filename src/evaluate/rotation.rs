//! The accuracy of rotation prediction.

use super::features::evaluate;
use super::metrics::{accuracy, predictions};
use super::partial::{as_classes, as_values, complete_in_group};
use crate::augment::ImageStore;
use crate::data::{Split, batches};
use crate::device::Device;
use crate::error::Result;
use crate::objectives::rotnet::{ROTATIONS, RotNetNetwork, rotation_labels, rotations};

/// Images per forward pass, each in four rotations.
const BATCH: u32 = 64;

/// Returns the fraction of correctly predicted rotations over all images of `split`, each in four
/// rotations, in evaluation mode and without augmentation. `found` holds the rotations predicted so
/// far.
///
/// # Errors
/// As [`complete_in_group`].
pub fn rotation_accuracy(
    device: &Device,
    network: &RotNetNetwork,
    split: &Split,
    found: &mut Vec<f32>,
) -> Result<f64> {
    let store = ImageStore::of(device, split)?;
    complete_in_group(found, (split.len(), BATCH), ROTATIONS, |_, indices| {
        let images = store.gather_in_order(indices)?;
        let images = rotations(device, &images, network.0.normalization())?;
        let logits = evaluate(device, network, &images)?.to_vec::<f32>()?;
        Ok(as_values(&predictions(&logits, ROTATIONS)))
    })?;
    let turns = batches(split.len() as u32, BATCH);
    let turns: Vec<u32> = turns.flat_map(|b| rotation_labels(b.len())).collect();
    Ok(accuracy(&as_classes(found), &turns))
}
