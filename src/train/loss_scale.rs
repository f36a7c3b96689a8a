//! Loss scaling for f16 activations and f16 factors of products, as in `torch.amp.GradScaler` and
//! with its constants. Without it, most gradients of activations would underflow f16.
//!
//! The scale starts large, is halved when a gradient overflows, and is doubled after many steps
//! without an overflow. It is a power of two, so scaling does not round.

/// The scale of the first step (`init_scale`).
const INITIAL: f32 = 65_536.0;
/// The factor after `GROWTH_INTERVAL` steps without an overflow (`growth_factor`).
const GROWTH: f32 = 2.0;
const GROWTH_INTERVAL: u32 = 2_000;
/// The factor after an overflow (`backoff_factor`).
const BACKOFF: f32 = 0.5;
/// At a scale of 1, an overflow cannot be fixed by scaling down.
const SMALLEST: f32 = 1.0;
/// A limit that keeps the scale finite if all gradients are zero.
const LARGEST: f32 = 16_777_216.0;

/// The loss scale of a step.
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
    /// The scale of the step that follows a step with finite gradients.
    pub fn after_good_step(self) -> Self {
        match self.good_steps + 1 {
            GROWTH_INTERVAL => LossScale {
                scale: (self.scale * GROWTH).min(LARGEST),
                good_steps: 0,
            },
            good_steps => LossScale { good_steps, ..self },
        }
    }

    /// The scale for repeating a step whose gradient overflowed, or `None` if the scale cannot be
    /// smaller.
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
