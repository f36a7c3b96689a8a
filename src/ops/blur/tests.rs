//! Blurred images against a float64 loop over both dimensions at once.

use super::GaussianBlur;
use crate::Device;
use crate::testing::accuracy::U;
use crate::testing::{
    Expected, agree, bits, devices, get, pixels, put, put_u32, random, refused_everywhere,
    same_bits, zeros,
};

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

#[test]
fn blurred_images_agree_with_float64() {
    let mut rng = random(110);
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
        for (name, device) in devices::all() {
            let y = device.run(GaussianBlur {
                x: &put(&device, &x, &shape),
                kernel_size: size,
                sigmas: &sigmas,
            });
            let case = format!("{shape:?}, kernel {size} on {name}");
            agree(&case, &y.expect(name), &shape, &expected);
        }
    }
}

#[test]
fn a_deviation_of_zero_keeps_every_bit() {
    let shape = [2, 3, 9, 8];
    let x = pixels(&mut random(111), shape);
    for (name, device) in devices::all() {
        let y = device.run(GaussianBlur {
            x: &put(&device, &x, &shape),
            kernel_size: 5,
            sigmas: &[0.0, 1.5],
        });
        let y = get(&y.expect(name));
        let half = x.len() / 2;
        assert_eq!(bits(&y[..half]), bits(&x[..half]), "{name}");
        assert_ne!(bits(&y[half..]), bits(&x[half..]), "{name}");
    }
}

#[test]
fn results_are_deterministic() {
    let shape = [5, 3, 32, 32];
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let x = &put(device, &pixels(&mut rng, shape), &shape);
        let sigmas: Vec<f32> = (0..5).map(|_| rng.uniform(0.1, 2.0)).collect();
        let blur = GaussianBlur {
            x,
            kernel_size: 3,
            sigmas: &sigmas,
        };
        [("y", device.run(blur).expect("images"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let run = |device: &Device, kernel_size, sigmas: &[f32]| {
        let x = &zeros(device, &[2, 3, 4, 5]);
        device.run(GaussianBlur {
            x,
            kernel_size,
            sigmas,
        })
    };
    for size in [0, 2, 9, usize::MAX] {
        let part = format!("the kernel size is {size} ");
        refused_everywhere(&part, |device| run(device, size, &[1.0; 2]));
    }
    for (sigma, part) in [(-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        refused_everywhere(part, |device| run(device, 3, &[1.0, sigma]));
    }
    refused_everywhere("one per image", |device| run(device, 3, &[1.0; 3]));
    refused_everywhere("U32", |device| {
        device.run(GaussianBlur {
            x: &put_u32(device, &[0; 120], &[2, 3, 4, 5]),
            kernel_size: 3,
            sigmas: &[1.0; 2],
        })
    });
    // Half of 7 is 3, less than 4.
    for (name, device) in devices::all() {
        run(&device, 7, &[1.0; 2]).expect(name);
    }
}
