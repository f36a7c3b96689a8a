//! Square images of one size, as torchvision's `Resize(N)` and `CenterCrop(N)` make them.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::{Images, Split, parallel};

/// Maximum ratio of the longer to the shorter side. An image with a larger ratio is cropped before
/// it is resized, which removes nothing that the result shows.
const LONGEST: u32 = 16;

/// Resizes the shorter side of `image` to `size` pixels, bilinear with antialiasing, and crops the
/// centre: `size` x `size` pixels. An image without pixels is not allowed.
pub fn centre_square(image: RgbImage, size: u32) -> RgbImage {
    let image = without_ends(image);
    let (width, height) = image.dimensions();
    let scaled = |long: u32, short: u32| {
        let exact = u64::from(size) * u64::from(long) / u64::from(short);
        exact as u32
    };
    let (width, height) = if width <= height {
        (size, scaled(height, width))
    } else {
        (scaled(width, height), size)
    };
    // Of the same size, it is a copy.
    let image = imageops::resize(&image, width, height, FilterType::Triangle);
    let (left, top) = (margin(width - size), margin(height - size));
    imageops::crop_imm(&image, left, top, size, size).to_image()
}

/// Half of `excess`, rounded to even if it is not whole, as Python's `round`.
fn margin(excess: u32) -> u32 {
    let half = excess / 2;
    match excess % 4 {
        3 => half + 1,
        _ => half,
    }
}

fn without_ends(image: RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let most = LONGEST.saturating_mul(width.min(height));
    if width.max(height) <= most {
        return image;
    }
    let (kept_width, kept_height) = (width.min(most), height.min(most));
    let (left, top) = ((width - kept_width) / 2, (height - kept_height) / 2);
    imageops::crop_imm(&image, left, top, kept_width, kept_height).to_image()
}

/// Writes the red, green and blue plane of `image` to `planes`, which has their size.
pub fn write_planes(image: &RgbImage, planes: &mut [u8]) {
    let pixels = image.as_raw();
    let plane = pixels.len() / 3;
    for (channel, values) in planes.chunks_exact_mut(plane).enumerate() {
        let source = pixels.iter().skip(channel).step_by(3);
        for (value, &pixel) in values.iter_mut().zip(source) {
            *value = pixel;
        }
    }
}

impl Split {
    /// The same images as squares of `size` pixels: the shorter side is resized with antialiasing,
    /// and the centre is cropped. Streamed images are resized when they are decoded.
    pub fn centre_squares(&self, size: usize) -> Split {
        let images = match &self.images {
            Images::Streamed(stream) => Images::Streamed(stream.as_squares(size)),
            Images::Held(pixels) => {
                let (width, height) = (self.width as u32, self.height as u32);
                let plane = self.width * self.height;
                let mut squares = vec![0; self.len() * 3 * size * size];
                let slots = squares.chunks_exact_mut(3 * size * size);
                let slots = slots.zip(pixels.chunks_exact(3 * plane));
                parallel::map(slots, |(slot, planes)| {
                    let image = RgbImage::from_fn(width, height, |x, y| {
                        let at = (y * width + x) as usize;
                        Rgb([planes[at], planes[plane + at], planes[2 * plane + at]])
                    });
                    write_planes(&centre_square(image, size as u32), slot);
                });
                Images::Held(squares)
            }
        };
        Split {
            images,
            labels: self.labels.clone(),
            files: self.files.clone(),
            height: size,
            width: size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_rounded_as_in_python() {
        // round(excess / 2) of Python: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4.
        let found: Vec<u32> = (0..9).map(margin).collect();
        assert_eq!(found, [0, 0, 1, 2, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn only_the_centre_is_left_of_an_image_of_the_right_height() {
        let image = RgbImage::from_fn(48, 32, |x, y| Rgb([x as u8, y as u8, 7]));
        let square = centre_square(image.clone(), 32);
        assert_eq!(square, imageops::crop_imm(&image, 8, 0, 32, 32).to_image());
        let long = RgbImage::from_fn(4_000, 1, |x, _| Rgb([(x / 1_990) as u8, 0, 0]));
        assert_eq!(centre_square(long, 3).get_pixel(1, 1), &Rgb([1, 0, 0]));
    }
}
