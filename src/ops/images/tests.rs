//! Operations on images against loops.

use super::{GatherImages, Normalize, PaddedCrop, PaddedCrops, Rotate90};
use crate::testing::accuracy::U;
use crate::testing::{
    Expected, agree, check_gradients, devices, normal_leaf, pixels, put, random,
    refused_everywhere, same_bits, zeros,
};
use crate::{Device, Tensor};

#[test]
fn bytes_become_floats_and_other_rows_are_unchanged() {
    let mut rng = random(20);
    // Images whose bytes do not fill words, and a set that small bindings cut into slices.
    for [n, c, h, w] in [[1, 1, 1, 1], [5, 3, 3, 3], [7, 1, 5, 7], [300, 3, 11, 9]] {
        let len = c * h * w;
        let bytes: Vec<u8> = (0..n * len).map(|_| rng.next_u32() as u8).collect();
        let first = rng.below(1000) as usize;
        // Some images before the first and some after the last.
        let indices: Vec<u32> = (0..2 * n + 3)
            .map(|_| (first + rng.below(2 * n as u32) as usize).saturating_sub(n / 2) as u32)
            .collect();
        let shape = [indices.len(), c, h, w];
        let mut expected = Expected::default();
        for &index in &indices {
            let image = (index as usize).checked_sub(first).filter(|&i| i < n);
            for k in 0..len {
                let value = match image {
                    Some(image) => f64::from(bytes[image * len + k]) / 255.0,
                    None => 7.0,
                };
                expected.push(value, 5.0 * U * value);
            }
        }
        for (name, device) in devices::all() {
            let images = &Tensor::from_slice(&bytes, &[n, c, h, w], &device).expect(name);
            let out = &put(&device, &vec![7.0; shape.iter().product()], &shape);
            let gather = GatherImages {
                images,
                first,
                indices: &indices,
                out,
            };
            device.run(gather).expect(name);
            let case = format!("gather of {n} x {c} x {h} x {w} on {name}");
            agree(&case, out, &shape, &expected);
        }
    }
}

const MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
const STD: [f32; 3] = [0.2023, 0.1994, 0.2010];

#[test]
fn normalization() {
    let mut rng = random(22);
    for shape in [[1, 3, 1, 1], [3, 3, 7, 5], [40, 3, 13, 17]] {
        let x = pixels(&mut rng, shape);
        let mut expected = Expected::default();
        for (i, &x) in x.iter().enumerate() {
            let channel = i / (shape[2] * shape[3]) % 3;
            let value = (f64::from(x) - f64::from(MEAN[channel])) / f64::from(STD[channel]);
            expected.push(value, 7.0 * U * value.abs());
        }
        for (name, device) in devices::all() {
            let x = &put(&device, &x, &shape);
            let (mean, std) = (MEAN, STD);
            let y = device.run(Normalize { x, mean, std }).expect(name);
            let case = format!("normalize {shape:?} on {name}");
            agree(&case, &y, &shape, &expected);
        }
    }
}

#[test]
fn gradient_of_the_normalization() {
    check_gradients("normalize", &[normal_leaf(71, &[2, 3, 2, 3])], |x| {
        x[0].normalize([0.5, 0.4, 0.3], [0.2, 0.5, 1.5])
    });
}

#[test]
fn padded_crops() {
    let mut rng = random(23);
    for (shape, padding) in [
        ([1, 1, 1, 1], 1),
        ([4, 3, 5, 7], 2),
        ([6, 2, 8, 8], 0),
        ([60, 3, 10, 9], 4),
    ] {
        let [n, c, h, w] = shape;
        let x = pixels(&mut rng, shape);
        let crops: Vec<_> = (0..n)
            .map(|_| PaddedCrop {
                top: rng.below(2 * padding + 1),
                left: rng.below(2 * padding + 1),
                flip: rng.below(2),
            })
            .collect();
        let padding = padding as usize;
        // The padded image first, then the crop, then the mirror.
        let mut expected = Vec::new();
        for (image, crop) in crops.iter().enumerate() {
            for channel in 0..c {
                let wide = w + 2 * padding;
                let mut padded = vec![0.0; (h + 2 * padding) * wide];
                for i in 0..h {
                    for j in 0..w {
                        padded[(i + padding) * wide + j + padding] =
                            f64::from(x[((image * c + channel) * h + i) * w + j]);
                    }
                }
                for i in 0..h {
                    let start = (i + crop.top as usize) * wide + crop.left as usize;
                    let mut row = padded[start..start + w].to_vec();
                    if crop.flip == 1 {
                        row.reverse();
                    }
                    expected.extend(row);
                }
            }
        }
        let expected = Expected::exact(expected);
        for (name, device) in devices::all() {
            let y = device.run(PaddedCrops {
                x: &put(&device, &x, &shape),
                padding,
                crops: &crops,
            });
            let case = format!("padded crop {shape:?} on {name}");
            agree(&case, &y.expect(name), &shape, &expected);
        }
    }
}

#[test]
fn quarter_turns() {
    let mut rng = random(24);
    for shape in [[4, 1, 1, 1], [5, 3, 4, 4], [90, 2, 11, 11]] {
        let (size, plane) = (shape[2], shape[2] * shape[3]);
        let x = pixels(&mut rng, shape);
        let turns: Vec<u32> = (0..shape[0]).map(|_| rng.below(4)).collect();
        // One quarter at a time: the last column becomes the first row.
        let expected = x.chunks(plane).enumerate().flat_map(|(number, chunk)| {
            let mut image: Vec<f64> = chunk.iter().copied().map(f64::from).collect();
            for _ in 0..turns[number / shape[1]] {
                image = (0..plane)
                    .map(|k| image[(k % size) * size + size - 1 - k / size])
                    .collect();
            }
            image
        });
        let expected = Expected::exact(expected.collect());
        for (name, device) in devices::all() {
            let y = device.run(Rotate90 {
                x: &put(&device, &x, &shape),
                quarter_turns: &turns,
            });
            let case = format!("rotate90 {shape:?} on {name}");
            agree(&case, &y.expect(name), &shape, &expected);
        }
    }
}

#[test]
fn results_are_deterministic() {
    let shape = [40, 3, 13, 13];
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let x = &put(device, &pixels(&mut rng, shape), &shape);
        let bytes: Vec<u8> = (0..40 * 3 * 13 * 13)
            .map(|_| rng.next_u32() as u8)
            .collect();
        let out = zeros(device, &shape);
        let indices: Vec<u32> = (0..40).rev().collect();
        let gather = GatherImages {
            images: &Tensor::from_slice(&bytes, &shape, device).expect("images"),
            first: 0,
            indices: &indices,
            out: &out,
        };
        device.run(gather).expect("gathered images");
        let (mean, std) = (MEAN, STD);
        let crop = PaddedCrop {
            top: 1,
            left: 3,
            flip: 1,
        };
        let normalized = device.run(Normalize { x, mean, std });
        let cropped = device.run(padded(x, 2, &[crop; 40]));
        let rotated = device.run(rotated(x, &[3; 40]));
        [
            ("gather", out),
            ("normalize", normalized.expect("images")),
            ("padded crop", cropped.expect("images")),
            ("rotate90", rotated.expect("images")),
        ]
    });
}

fn padded<'a>(x: &'a Tensor, padding: usize, crops: &'a [PaddedCrop]) -> PaddedCrops<'a> {
    PaddedCrops { x, padding, crops }
}

fn rotated<'a>(x: &'a Tensor, quarter_turns: &'a [u32]) -> Rotate90<'a> {
    Rotate90 { x, quarter_turns }
}

#[test]
fn arguments_of_a_gather_that_do_not_fit_are_refused() {
    let gather = |device: &Device, images: &Tensor, out: [usize; 4]| {
        device.run(GatherImages {
            images,
            first: 0,
            indices: &[0, 1],
            out: &zeros(device, &out),
        })
    };
    refused_everywhere("[2, 3, 2, 2]", |device| {
        let images = Tensor::from_slice(&[0u8; 24], &[2, 3, 2, 2], device)?;
        gather(device, &images, [2, 3, 2, 3])
    });
    refused_everywhere("U8", |device| {
        gather(device, &zeros(device, &[2, 3, 2, 2]), [2, 3, 2, 2])
    });
}

#[test]
fn arguments_of_a_normalization_that_do_not_fit_are_refused() {
    let normalize = |device: &Device, channels, std| {
        let (x, mean) = (&zeros(device, &[1, channels, 2, 2]), [0.0; 3]);
        device.run(Normalize { x, mean, std })
    };
    refused_everywhere("above 0", |device| normalize(device, 3, [1.0, 0.0, 1.0]));
    refused_everywhere("three channels", |device| normalize(device, 4, [1.0; 3]));
}

#[test]
fn arguments_of_a_padded_crop_that_do_not_fit_are_refused() {
    let crop = |device: &Device, padding, top, left| {
        let crop = PaddedCrop { top, left, flip: 0 };
        device.run(padded(&zeros(device, &[1, 3, 4, 5]), padding, &[crop]))
    };
    refused_everywhere("padded by 1", |device| crop(device, 1, 3, 0));
    refused_everywhere("padded by 1", |device| crop(device, 1, 0, 3));
    refused_everywhere("padding 6", |device| crop(device, 6, 0, 0));
    refused_everywhere("0 parameters", |device| {
        device.run(padded(&zeros(device, &[2, 3, 4, 4]), 1, &[]))
    });
}

#[test]
fn arguments_of_a_rotation_that_do_not_fit_are_refused() {
    let rotate = |device: &Device, width, turns: &[u32]| {
        device.run(rotated(&zeros(device, &[1, 3, 4, width]), turns))
    };
    refused_everywhere("square", |device| rotate(device, 5, &[0]));
    refused_everywhere("0 to 3", |device| rotate(device, 4, &[4]));
    refused_everywhere("2 parameters", |device| rotate(device, 4, &[0, 1]));
}
