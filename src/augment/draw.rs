//! The keys of random views. Each combination of seed, step, sample, view and purpose has its own
//! generator, so a view is the same on every device and in a resumed run.

use crate::philox::Philox;

/// Identifies one view of each image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    pub seed: u64,
    pub step: u32,
    /// The number of the view, counted from 0; below 65,536.
    pub view: u32,
}

/// The purpose of a random number. Each purpose has a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Purpose {
    Crop = 0,
    Flip = 1,
    Jitter = 2,
    Grayscale = 3,
    PaddedCrop = 4,
    Blur = 5,
}

/// The sample number of a draw that the whole batch shares.
pub(crate) const WHOLE_BATCH: u32 = u32::MAX;

impl ViewKey {
    /// The generator for one view and purpose. `sample` is the index of the image in its data set.
    pub(crate) fn generator(self, sample: u32, purpose: Purpose) -> Philox {
        Philox::new(
            self.seed,
            [self.step, sample, self.view << 16 | purpose as u32],
        )
    }
}

/// Returns true with this probability.
pub(crate) fn happens(rng: &mut Philox, probability: f32) -> bool {
    rng.unit() < probability
}
