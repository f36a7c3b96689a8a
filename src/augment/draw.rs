//! The keys of random views: one generator per seed, step, sample, view and purpose, so that a view is the same on
//! every device, after every resume, and whatever else was drawn.

use crate::philox::Philox;

/// What tells the views of one batch from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    pub seed: u64,
    pub step: u32,
    /// Which view of each image, counted from 0; below 65,536.
    pub view: u32,
}

/// What a random number decides. Each purpose has its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Purpose {
    Crop = 0,
    Flip = 1,
    Jitter = 2,
    Grayscale = 3,
    PaddedCrop = 4,
}

/// The sample number of a draw that a whole batch shares.
pub(crate) const WHOLE_BATCH: u32 = u32::MAX;

impl ViewKey {
    /// The generator of one image's view for one purpose; `sample` is the image's index in its data set.
    pub(crate) fn generator(self, sample: u32, purpose: Purpose) -> Philox {
        Philox::new(
            self.seed,
            [self.step, sample, self.view << 16 | purpose as u32],
        )
    }
}

/// Whether something with this probability happens.
pub(crate) fn happens(rng: &mut Philox, probability: f32) -> bool {
    rng.unit() < probability
}
