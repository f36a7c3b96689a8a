//! Random Gaussian blur, as in SimCLR (Chen et al. 2020, appendix A).

use super::draw::happens;
use crate::philox::Philox;

/// The probability of a blur, and the range of its standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomBlur {
    /// The probability of a blur. Otherwise, the image is not changed.
    pub probability: f32,
    /// Standard deviation in pixels; uniform. Above 0.
    pub sigma: [f32; 2],
}

impl Default for RandomBlur {
    /// Probability 0.5 and a standard deviation of 0.1 to 2 pixels (Chen et al. 2020).
    fn default() -> Self {
        RandomBlur {
            probability: 0.5,
            sigma: [0.1, 2.0],
        }
    }
}

impl RandomBlur {
    /// The side of the kernel for images of `size` x `size` pixels: a tenth of them, or one more if
    /// that is even.
    pub fn kernel_size(size: usize) -> usize {
        size / 10 / 2 * 2 + 1
    }

    /// The standard deviation for one image, 0 for no blur.
    pub(crate) fn draw(&self, rng: &mut Philox) -> f32 {
        if happens(rng, self.probability) {
            rng.uniform(self.sigma[0], self.sigma[1])
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_a_tenth_of_the_image_and_odd() {
        for (size, kernel) in [(4, 1), (32, 3), (64, 7), (96, 9), (100, 11), (224, 23)] {
            assert_eq!(RandomBlur::kernel_size(size), kernel, "{size}");
        }
    }
}
