//! Random colour changes, as `torchvision.transforms.v2.ColorJitter` and `RandomGrayscale` draw them.

use super::draw::happens;
use crate::ops::color::ColorStep;
use crate::philox::Philox;

/// Strengths of the four changes and how often they are made at all. A strength of 0 leaves its change out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    /// The factor is uniform in [max(0, 1 - brightness), 1 + brightness]; contrast and saturation alike.
    pub brightness: f32,
    pub contrast: f32,
    pub saturation: f32,
    /// The turn is uniform in [-hue, hue]; at most 0.5.
    pub hue: f32,
    /// With this probability an image is changed in all four ways, else not at all.
    pub probability: f32,
}

impl ColorJitter {
    /// The changes of one image in their order, which is uniform among all orders.
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
