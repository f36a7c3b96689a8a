//! How many times the loss is multiplied before its gradient is taken, where gradients of activations are f16: most of
//! them are smaller than the smallest f16 and would be zero. As `torch.amp.GradScaler` does it, and with its numbers:
//! the scale begins large, is halved where a gradient overflows, and doubled after many steps without one. It is always
//! a power of two, so that scaling changes no digit.

/// Of the first step, as `GradScaler`'s `init_scale`.
const INITIAL: f32 = 65_536.0;
/// What it is multiplied by, after so many steps without an overflow (`growth_factor`, `growth_interval`).
const GROWTH: f32 = 2.0;
const GROWTH_INTERVAL: u32 = 2_000;
/// What it is multiplied by where a gradient overflows (`backoff_factor`).
const BACKOFF: f32 = 0.5;
/// A gradient that overflows though the loss is not scaled at all is no matter of the scale.
const SMALLEST: f32 = 1.0;
/// Far more than any gradient needs: what keeps the scale finite where all gradients are zero.
const LARGEST: f32 = 16_777_216.0;

/// The loss scale of a step, with what decides when it grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    pub scale: f32,
    /// Steps without an overflow since the scale last changed (`growth_tracker`).
    pub good_steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale {
            scale: INITIAL,
            good_steps: 0,
        }
    }
}

impl LossScale {
    /// That of the step after one whose gradients were finite.
    pub fn after_good_step(self) -> Self {
        match self.good_steps + 1 {
            GROWTH_INTERVAL => LossScale {
                scale: (self.scale * GROWTH).min(LARGEST),
                good_steps: 0,
            },
            good_steps => LossScale { good_steps, ..self },
        }
    }

    /// That of the same step taken again, after a gradient overflowed; none where the loss is not scaled any more.
    pub fn after_overflow(self) -> Option<Self> {
        (self.scale > SMALLEST).then_some(LossScale {
            scale: (self.scale * BACKOFF).max(SMALLEST),
            good_steps: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_an_overflow_down_to_one() {
        let mut scale = LossScale::default();
        let mut halvings = 0;
        while let Some(smaller) = scale.after_overflow() {
            assert_eq!(smaller.scale, scale.scale / 2.0);
            (scale, halvings) = (smaller, halvings + 1);
        }
        assert_eq!((scale.scale, halvings), (1.0, 16));
    }

    #[test]
    fn it_doubles_after_two_thousand_good_steps_in_a_row() {
        let steps = |scale: LossScale, count: u32| {
            (0..count).fold(scale, |scale, _| scale.after_good_step())
        };
        let before = steps(LossScale::default(), GROWTH_INTERVAL - 1);
        assert_eq!(before.scale, INITIAL);
        assert_eq!(before.after_good_step().scale, 2.0 * INITIAL);
        let overflow = before.after_overflow().expect("it is large");
        assert_eq!(steps(overflow, GROWTH_INTERVAL - 1).scale, INITIAL / 2.0);
        assert_eq!(steps(overflow, GROWTH_INTERVAL).scale, INITIAL);
        assert_eq!(steps(overflow, 100 * GROWTH_INTERVAL).scale, LARGEST);
    }
}
