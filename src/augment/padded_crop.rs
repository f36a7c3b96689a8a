//! The classic CIFAR augmentation: a crop of the image's own size out of the padded image, and a random mirror.

use super::draw::{Purpose, ViewKey, happens};
use crate::device::Device;
use crate::error::Result;
use crate::ops::images::{PaddedCrop, PaddedCrops};
use crate::tensor::Tensor;

/// Zero padding, and how often an image is mirrored left to right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaddedCropAugmentation {
    /// Pixels to the left and to the right.
    pub padding: u32,
    /// Pixels above and below, `padding` at most.
    pub vertical: u32,
    /// Probability.
    pub flip: f32,
}

impl Default for PaddedCropAugmentation {
    /// Padding 4, flip 0.5 (He et al. 2016, section 4.2).
    fn default() -> Self {
        PaddedCropAugmentation {
            padding: 4,
            vertical: 4,
            flip: 0.5,
        }
    }
}

impl PaddedCropAugmentation {
    /// What the evaluated paper's code does before it rotates: 4 pixels left and right, 2 above and below, so that
    /// black borders tell a turned image from an upright one.
    pub fn paper_rotnet() -> Self {
        PaddedCropAugmentation {
            vertical: 2,
            ..Self::default()
        }
    }

    /// One crop for each of `samples`, indices into the data set.
    pub fn draw(&self, key: ViewKey, samples: &[u32]) -> Vec<PaddedCrop> {
        let draw_one = |&sample: &u32| {
            let mut rng = key.generator(sample, Purpose::PaddedCrop);
            PaddedCrop {
                // The kernel pads every side alike: a smaller border keeps the crop from the rows beyond it.
                top: self.padding - self.vertical + rng.below(2 * self.vertical + 1),
                left: rng.below(2 * self.padding + 1),
                flip: u32::from(happens(
                    &mut key.generator(sample, Purpose::Flip),
                    self.flip,
                )),
            }
        };
        samples.iter().map(draw_one).collect()
    }

    /// The crops of `images [B, C, H, W]`, of the same shape; what the crop leaves free is 0.
    ///
    /// # Errors
    /// `Error::Shape` where there is not one crop an image.
    pub fn apply(&self, device: &Device, images: &Tensor, crops: &[PaddedCrop]) -> Result<Tensor> {
        device.run(PaddedCrops {
            x: images,
            padding: self.padding as usize,
            crops,
        })
    }
}
