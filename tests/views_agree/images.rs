//! Gathering bytes, normalisation, padded crops and quarter turns.

use parallax::augment::ImageStore;
use parallax::device::kernels::{HostSlice, PaddedCrop};
use parallax::tensor::DType;

use crate::compare::{U, agree, get, pixels, put, random};
use crate::devices;

#[test]
fn bytes_become_floats_and_other_rows_stay() {
    let mut rng = random(20);
    // Images whose bytes do not fill words, and a set that is sliced on the device with small bindings.
    for [n, c, h, w] in [[1, 1, 1, 1], [5, 3, 3, 3], [7, 1, 5, 7], [300, 3, 11, 9]] {
        let len = c * h * w;
        let bytes: Vec<u8> = (0..n * len).map(|_| rng.next_u32() as u8).collect();
        let first = rng.below(1000) as usize;
        // Some images before the first and some behind the last.
        let indices: Vec<u32> = (0..2 * n + 3)
            .map(|_| (first + rng.below(2 * n as u32) as usize).saturating_sub(n / 2) as u32)
            .collect();
        let shape = [indices.len(), c, h, w];
        let expected: Vec<f64> = indices
            .iter()
            .flat_map(|&index| {
                let image = (index as usize).checked_sub(first).filter(|&i| i < n);
                let bytes = &bytes;
                (0..len).map(move |k| match image {
                    Some(image) => f64::from(bytes[image * len + k]) / 255.0,
                    None => 7.0,
                })
            })
            .collect();
        for (name, device) in devices::all() {
            let images = device.upload(HostSlice::U8(&bytes), &[n, c, h, w]).unwrap();
            let out = put(&device, &vec![7.0; shape.iter().product()], &shape);
            device
                .gather_images(&images, first, &indices, &out)
                .unwrap();
            let case = format!("gather {n} x {c} x {h} x {w} on {name}");
            agree(&case, &get(&device, &out), &expected, |i| {
                5.0 * U * expected[i]
            });
        }
    }
}

#[test]
fn a_store_gives_the_images_asked_for() {
    let mut rng = random(21);
    let (count, shape) = (57, [3, 6, 5]);
    let bytes: Vec<u8> = (0..count * 90).map(|_| rng.next_u32() as u8).collect();
    let indices = [56, 0, 3, 3, 41];
    let expected: Vec<f64> = indices
        .iter()
        .flat_map(|&i| &bytes[i as usize * 90..][..90])
        .map(|&b| f64::from(b) / 255.0)
        .collect();
    for (name, device) in devices::all() {
        let store = ImageStore::new(&device, &bytes, shape).unwrap();
        let batch = store.gather(&indices).unwrap();
        assert_eq!(
            (batch.shape(), batch.dtype()),
            (&[5, 3, 6, 5][..], DType::F32)
        );
        agree(name, &get(&device, &batch), &expected, |i| {
            5.0 * U * expected[i]
        });
    }
}

#[test]
fn normalisation() {
    let mut rng = random(22);
    let (mean, std) = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
    for shape in [[1, 3, 1, 1], [3, 3, 7, 5], [40, 3, 13, 17]] {
        let x = pixels(&mut rng, shape);
        let expected: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let channel = i / (shape[2] * shape[3]) % 3;
                (f64::from(x) - f64::from(mean[channel])) / f64::from(std[channel])
            })
            .collect();
        for (name, device) in devices::all() {
            let y = device
                .normalize(&put(&device, &x, &shape), mean, std)
                .unwrap();
            let case = format!("normalize {shape:?} on {name}");
            agree(&case, &get(&device, &y), &expected, |i| {
                7.0 * U * expected[i].abs()
            });
        }
    }
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
        // The padded image first, then the crop, then the mirror.
        let mut expected = Vec::new();
        for (image, crop) in crops.iter().enumerate() {
            for channel in 0..c {
                let wide = w + 2 * padding as usize;
                let mut padded = vec![0.0; (h + 2 * padding as usize) * wide];
                for i in 0..h {
                    for j in 0..w {
                        padded[(i + padding as usize) * wide + j + padding as usize] =
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
        for (name, device) in devices::all() {
            let y = device
                .padded_crop(&put(&device, &x, &shape), padding as usize, &crops)
                .unwrap();
            let case = format!("padded crop {shape:?} on {name}");
            agree(&case, &get(&device, &y), &expected, |_| f64::MIN_POSITIVE);
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
        let expected: Vec<f64> = x
            .chunks(plane)
            .enumerate()
            .flat_map(|(number, chunk)| {
                let mut image: Vec<f64> = chunk.iter().copied().map(f64::from).collect();
                for _ in 0..turns[number / shape[1]] {
                    image = (0..plane)
                        .map(|k| image[(k % size) * size + size - 1 - k / size])
                        .collect();
                }
                image
            })
            .collect();
        for (name, device) in devices::all() {
            let y = device.rotate90(&put(&device, &x, &shape), &turns).unwrap();
            let case = format!("rotate90 {shape:?} on {name}");
            agree(&case, &get(&device, &y), &expected, |_| f64::MIN_POSITIVE);
        }
    }
}
