//! Resized crops against dense float64 filters.

use parallax::device::kernels::ResizedCrop;
use parallax::device::philox::Philox;

use crate::compare::{U, agree, get, pixels, put, random};
use crate::devices;

/// The triangle filter of PyTorch's antialiased resize, as a dense `to` x `from` matrix whose rows add up to 1.
fn filter(from: usize, to: usize) -> Vec<Vec<f64>> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let row: Vec<f64> = (0..from)
                .map(|j| (1.0 - ((j as f64 + 0.5 - center) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = row.iter().sum();
            row.into_iter().map(|weight| weight / sum).collect()
        })
        .collect()
}

/// One plane's crop, and how many numbers each result is the sum of.
fn resize(x: &[f32], width: usize, crop: ResizedCrop, size: usize) -> Vec<(f64, usize)> {
    let rows = filter(crop.height as usize, size);
    let columns = filter(crop.width as usize, size);
    let mut out = Vec::new();
    for row in &rows {
        for j in 0..size {
            let column = &columns[if crop.flip == 1 { size - 1 - j } else { j }];
            let (mut sum, mut terms) = (0.0, 0);
            for (y, a) in row.iter().enumerate().filter(|(_, a)| **a > 0.0) {
                for (x_, b) in column.iter().enumerate().filter(|(_, b)| **b > 0.0) {
                    let place = (crop.top as usize + y) * width + crop.left as usize + x_;
                    sum += a * b * f64::from(x[place]);
                    terms += 1;
                }
            }
            out.push((sum, terms));
        }
    }
    out
}

fn random_crop(rng: &mut Philox, [n, _, h, w]: [usize; 4]) -> ResizedCrop {
    let (height, width) = (1 + rng.below(h as u32), 1 + rng.below(w as u32));
    ResizedCrop {
        image: rng.below(n as u32),
        top: rng.below(h as u32 - height + 1),
        left: rng.below(w as u32 - width + 1),
        height,
        width,
        flip: rng.below(2),
    }
}

#[test]
fn crops_of_any_size_equal_the_dense_filter() {
    let mut rng = random(1);
    // The last two are sliced on the device with small bindings, images and results alike.
    let cases = [
        ([1, 1, 1, 1], 1, 1),
        ([1, 3, 1, 1], 5, 2),
        ([2, 3, 7, 11], 1, 3),
        ([3, 2, 32, 32], 32, 9),
        ([2, 3, 19, 33], 8, 6),
        ([1, 1, 101, 97], 13, 4),
        ([23, 3, 17, 13], 9, 60),
        ([5, 3, 32, 32], 29, 20),
    ];
    for (shape, size, count) in cases {
        let x = pixels(&mut rng, shape);
        let crops: Vec<_> = (0..count).map(|_| random_crop(&mut rng, shape)).collect();
        let plane = shape[2] * shape[3];
        let (expected, terms): (Vec<f64>, Vec<usize>) = crops
            .iter()
            .flat_map(|crop| (0..shape[1]).map(move |c| (crop, c)))
            .flat_map(|(&crop, c)| {
                let start = (crop.image as usize * shape[1] + c) * plane;
                resize(&x[start..][..plane], shape[3], crop, size)
            })
            .unzip();
        for (name, device) in devices::all() {
            let y = device
                .resized_crop(&put(&device, &x, &shape), &crops, size)
                .unwrap();
            assert_eq!(y.shape(), [count, shape[1], size, size]);
            let case = format!("{shape:?} to {size} on {name}");
            // The sum's own bound, and eight roundings of the weights (two products, two sums, a division).
            agree(&case, &get(&device, &y), &expected, |i| {
                (4.0 * (terms[i] as f64).sqrt() + 8.0) * U * expected[i] + f64::MIN_POSITIVE
            });
        }
    }
}

#[test]
fn a_crop_of_the_whole_image_at_its_own_size_changes_nothing() {
    let mut rng = random(2);
    let shape = [2, 3, 12, 12];
    let x = pixels(&mut rng, shape);
    for (name, device) in devices::all() {
        let crops = [0, 1].map(|image| ResizedCrop {
            image,
            top: 0,
            left: 0,
            height: 12,
            width: 12,
            flip: 0,
        });
        let y = device
            .resized_crop(&put(&device, &x, &shape), &crops, 12)
            .unwrap();
        let expected: Vec<f64> = x.iter().copied().map(f64::from).collect();
        // On a GPU the weight is divided by itself, which may be off by 2.5 ulp.
        agree(name, &get(&device, &y), &expected, |i| {
            5.0 * U * expected[i]
        });
    }
}
