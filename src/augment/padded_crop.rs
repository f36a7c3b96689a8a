//! The usual augmentation of CIFAR: a crop of the padded image, and a random flip.

use super::draw::{Purpose, ViewKey, happens};
use crate::device::Device;
use crate::error::Result;
use crate::ops::images::{PaddedCrop, PaddedCrops};
use crate::tensor::Tensor;

/// Zero padding and the probability of a flip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaddedCropAugmentation {
    /// Pixels on the left and on the right.
    pub padding: u32,
    /// Pixels above and below; at most `padding`.
    pub vertical: u32,
    /// Probability of a left-right flip.
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
    /// As in the code of the reproduced paper, before rotation: 4 pixels on the left and right, 2
    /// above and below. The widths of the black borders therefore reveal quarter turns.
    pub fn paper_rotnet() -> Self {
        PaddedCropAugmentation {
            vertical: 2,
            ..Self::default()
        }
    }

    /// One crop per sample. `samples` are indices into the data set.
    pub fn draw(&self, key: ViewKey, samples: &[u32]) -> Vec<PaddedCrop> {
        let draw_one = |&sample: &u32| {
            let mut rng = key.generator(sample, Purpose::PaddedCrop);
            PaddedCrop {
                // The kernel pads all sides by `padding`. Rows beyond `vertical` are excluded.
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

    /// The crops of `images [B, C, H, W]`, in the same shape. Padding is 0.
    ///
    /// # Errors
    /// `Error::Shape` unless there is one crop per image.
    pub fn apply(&self, device: &Device, images: &Tensor, crops: &[PaddedCrop]) -> Result<Tensor> {
        device.run(PaddedCrops {
            x: images,
            padding: self.padding as usize,
            crops,
        })
    }
}
