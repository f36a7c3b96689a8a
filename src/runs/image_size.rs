//! Images that are too small, refused before anything is computed.

use crate::error::{Error, Result};
use crate::nn::ResNetConfig;

/// Sides that are tried to find the smallest image that works.
const SIDES: usize = 256;

/// Fails if images of `width` x `height` pixels are too small for `encoder`, or for crops that are
/// padded by `padding` pixels. `command` is what works on the images.
///
/// # Errors
/// `Error::Data` with the size and the smallest that works.
pub fn check_image_size(
    command: &str,
    [width, height]: [usize; 2],
    encoder: &ResNetConfig,
    padding: usize,
) -> Result<()> {
    let shape = encoder.shape()?;
    let works = |width: usize, height: usize| {
        width.max(height) >= padding && shape.geometries(width.min(height)).is_ok()
    };
    if works(width, height) {
        return Ok(());
    }
    let smallest = (1..SIDES).find(|&side| works(side, side)).unwrap_or(SIDES);
    Err(Error::data(
        "images",
        format!(
            "{width} x {height} pixels are too small for {command}, which works from {smallest} x {smallest} pixels on; \
             --size {smallest} or more enlarges them"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Arch, Stem};

    #[test]
    fn the_smallest_size_is_that_of_the_padding_or_of_the_network() {
        let encoder = |padding| ResNetConfig {
            arch: Arch::ResNet18,
            stem: Stem::Cifar { padding },
            width: 0.25,
        };
        let check = |size, padding, crops| check_image_size("it", size, &encoder(padding), crops);
        assert!(check([1, 1], 1, 0).is_ok());
        assert!(check([4, 4], 1, 4).is_ok());
        for (size, padding, crops, words) in [
            ([1, 1], 1, 4, ["1 x 1 pixels", "from 4 x 4 pixels"]),
            ([5, 2], 0, 0, ["5 x 2 pixels", "from 3 x 3 pixels"]),
        ] {
            let error = check(size, padding, crops).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
