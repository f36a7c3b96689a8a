//! Random colour changes, as in `torchvision.transforms.v2.ColorJitter`.

use super::draw::happens;
use crate::ops::color::ColorStep;
use crate::philox::Philox;

/// Strengths of the four changes, and their probability. A strength of 0 disables its change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    /// The factor is uniform in [max(0, 1 - brightness), 1 + brightness]. Contrast and saturation
    /// have the same kind of range.
    pub brightness: f32,
    pub contrast: f32,
    pub saturation: f32,
    /// The rotation of the hue is uniform in [-hue, hue] turns; at most 0.5.
    pub hue: f32,
    /// The probability of all four changes. Otherwise, the image is not changed.
    pub probability: f32,
}

impl ColorJitter {
    /// The changes of one image, in a uniformly random order.
    pub(crate) fn draw(&self, rng: &mut Philox) -> Vec<(ColorStep, f32)> {
        if !happens(rng, self.probability) {
            return Vec::new();
        }
        let factor = |rng: &mut Philox, strength: f32| {
            rng.uniform((1.0 - strength).max(0.0), 1.0 + strength)
        };
        let mut steps = vec![
            (ColorStep::Brightness, factor(rng, self.brightness)),
            (ColorStep::Contrast, factor(rng, self.contrast)),
            (ColorStep::Saturation, factor(rng, self.saturation)),
            (ColorStep::Hue, rng.uniform(-self.hue, self.hue)),
        ];
        rng.shuffle(&mut steps);
        steps.retain(|(step, _)| self.strength(*step) > 0.0);
        steps
    }

    fn strength(&self, step: ColorStep) -> f32 {
        match step {
            ColorStep::Brightness => self.brightness,
            ColorStep::Contrast => self.contrast,
            ColorStep::Saturation => self.saturation,
            ColorStep::Hue => self.hue,
            ColorStep::Nothing | ColorStep::Grayscale => 0.0,
        }
    }
}
