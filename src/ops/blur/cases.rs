//! Blurred images against a float64 loop over both dimensions at once.

use super::GaussianBlur;
use crate::error::Result;
use crate::testing::accuracy::U;
use crate::testing::{Expected, Tester, bits, pixels};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    blurred_images_agree_with_float64(tester)?;
    a_deviation_of_zero_keeps_every_bit(tester)
}

/// Pixel `place` of a line of `len` pixels, which continues as its reflection.
fn reflected(place: i64, len: usize) -> usize {
    let last = len as i64 - 1;
    let place = if place < 0 { -place } else { place };
    let place = if place > last {
        2 * last - place
    } else {
        place
    };
    place as usize
}

/// The blurred planes of one image. Weights and pixels are not negative, so the error of a pass is
/// relative: that of a sum of K terms, and three roundings of a weight and a product.
fn blurred(x: &[f32], [h, w]: [usize; 2], size: usize, sigma: f32, expected: &mut Expected) {
    let radius = size as i64 / 2;
    let weight = |d: i64| match d {
        0 => 1.0,
        d => (-((d as f64) / f64::from(sigma)).powi(2) / 2.0).exp(),
    };
    let sum: f64 = (-radius..=radius).map(weight).sum();
    for plane in x.chunks(h * w) {
        for i in 0..h as i64 {
            for j in 0..w as i64 {
                let mut value = 0.0;
                for a in -radius..=radius {
                    for b in -radius..=radius {
                        let pixel = reflected(i + a, h) * w + reflected(j + b, w);
                        value += weight(a) * weight(b) / (sum * sum) * f64::from(plane[pixel]);
                    }
                }
                let relative = 2.0 * (4.0 * (size as f64).sqrt() + 3.0) * U;
                expected.push(value, relative * value);
            }
        }
    }
}

fn blurred_images_agree_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(110);
    // If bindings are small, the last two are cut into slices.
    for (shape, size) in [
        ([1, 1, 1, 1], 1),
        ([2, 3, 2, 2], 3),
        ([3, 3, 7, 12], 5),
        ([2, 1, 12, 7], 13),
        ([4, 3, 32, 32], 3),
        ([1, 2, 40, 25], 23),
        ([23, 3, 17, 13], 9),
        ([7, 3, 31, 33], 7),
    ] {
        let x = pixels(&mut rng, shape);
        let sigmas: Vec<f32> = (0..shape[0])
            .map(|i| match i % 4 {
                1 => 0.0,
                _ => rng.uniform(0.1, 2.0),
            })
            .collect();
        let [h, w] = [shape[2], shape[3]];
        let mut expected = Expected::default();
        for (x, &sigma) in x.chunks(shape[1] * h * w).zip(&sigmas) {
            blurred(x, [h, w], size, sigma, &mut expected);
        }
        for on in tester.all() {
            let y = on.run(GaussianBlur {
                x: &on.put(&x, &shape)?,
                kernel_size: size,
                sigmas: &sigmas,
            });
            on.agree(
                &format!("of {shape:?}, kernel {size}"),
                &y?,
                &shape,
                &expected,
            )?;
        }
    }
    Ok(())
}

fn a_deviation_of_zero_keeps_every_bit(tester: &Tester) -> Result<()> {
    let shape = [2, 3, 9, 8];
    let x = pixels(&mut tester.random(111), shape);
    let case = "with a deviation of zero";
    for on in tester.all() {
        let y = on.run(GaussianBlur {
            x: &on.put(&x, &shape)?,
            kernel_size: 5,
            sigmas: &[0.0, 1.5],
        });
        let (x, y) = (bits(&x), bits(&y?.to_vec()?));
        let half = x.len() / 2;
        on.equal(case, &y[..half], &x[..half]);
        on.check(case, y[half..] != x[half..], || {
            "the image with another deviation is unchanged".to_string()
        });
    }
    Ok(())
}
