//! The random box of a resized crop, as in `torchvision.transforms.v2.RandomResizedCrop`.

use crate::philox::Philox;

/// The ranges of the area and the aspect ratio of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Fraction of the area of the image; uniform.
    pub scale: [f32; 2],
    /// Width divided by height; its logarithm is uniform.
    pub ratio: [f32; 2],
}

/// A box in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    pub top: u32,
    pub left: u32,
    pub height: u32,
    pub width: u32,
}

impl RandomResizedCrop {
    /// A box in an image of `height` x `width` pixels: the first of ten draws that fits, otherwise
    /// the largest centred box with a ratio in the range.
    pub(crate) fn draw(&self, rng: &mut Philox, height: u32, width: u32) -> CropBox {
        let area = f64::from(height) * f64::from(width);
        let log_ratio = self.ratio.map(|ratio| f64::from(ratio).ln());
        for _ in 0..10 {
            let target = area * uniform(rng, self.scale.map(f64::from));
            let aspect = uniform(rng, log_ratio).exp();
            let box_width = (target * aspect).sqrt().round_ties_even() as u32;
            let box_height = (target / aspect).sqrt().round_ties_even() as u32;
            if (1..=width).contains(&box_width) && (1..=height).contains(&box_height) {
                return CropBox {
                    top: rng.below(height - box_height + 1),
                    left: rng.below(width - box_width + 1),
                    height: box_height,
                    width: box_width,
                };
            }
        }
        self.centered(height, width)
    }

    fn centered(&self, height: u32, width: u32) -> CropBox {
        let [narrowest, widest] = self.ratio.map(f64::from);
        let ratio = f64::from(width) / f64::from(height);
        let (box_height, box_width) = if ratio < narrowest {
            (rounded(f64::from(width) / narrowest, height), width)
        } else if ratio > widest {
            (height, rounded(f64::from(height) * widest, width))
        } else {
            (height, width)
        };
        CropBox {
            top: (height - box_height) / 2,
            left: (width - box_width) / 2,
            height: box_height,
            width: box_width,
        }
    }
}

/// `pixels`, rounded and clamped to `1..=most`.
fn rounded(pixels: f64, most: u32) -> u32 {
    (pixels.round_ties_even() as u32).clamp(1, most.max(1))
}

fn uniform(rng: &mut Philox, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * f64::from(rng.unit())
}
