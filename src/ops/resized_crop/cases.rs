//! Resized crops against dense float64 filters.

use super::{ResizedCrop, ResizedCrops};
use crate::error::Result;
use crate::philox::Philox;
use crate::testing::accuracy::U;
use crate::testing::{Expected, Tester, pixels};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    crops_of_any_size_agree_with_the_dense_filter(tester)?;
    a_crop_of_the_whole_image_at_its_own_size_changes_nothing(tester)
}

/// The triangle filter of PyTorch's antialiased resize, as a dense `to` x `from` matrix. Each row
/// has the sum 1.
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

/// Appends the crop of one plane. The bound is that of the sum, and eight roundings of the weights
/// (two products, two sums, a division).
fn resize(expected: &mut Expected, x: &[f32], width: usize, crop: ResizedCrop, size: usize) {
    let rows = filter(crop.height as usize, size);
    let columns = filter(crop.width as usize, size);
    for row in &rows {
        for j in 0..size {
            let column = &columns[if crop.flip == 1 { size - 1 - j } else { j }];
            let (mut sum, mut terms) = (0.0, 0);
            for (i, a) in row.iter().enumerate().filter(|(_, a)| **a > 0.0) {
                for (j, b) in column.iter().enumerate().filter(|(_, b)| **b > 0.0) {
                    let pixel = (crop.top as usize + i) * width + crop.left as usize + j;
                    sum += a * b * f64::from(x[pixel]);
                    terms += 1;
                }
            }
            expected.push(sum, (4.0 * f64::from(terms).sqrt() + 8.0) * U * sum);
        }
    }
}

pub(super) fn random_crop(rng: &mut Philox, [n, _, h, w]: [usize; 4]) -> ResizedCrop {
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

fn crops_of_any_size_agree_with_the_dense_filter(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(1);
    // If bindings are small, images and results of the last two are cut into slices.
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
        let mut expected = Expected::default();
        for &crop in &crops {
            for c in 0..shape[1] {
                let start = (crop.image as usize * shape[1] + c) * plane;
                resize(&mut expected, &x[start..][..plane], shape[3], crop, size);
            }
        }
        for on in tester.all() {
            let y = on.run(ResizedCrops {
                x: &on.put(&x, &shape)?,
                crops: &crops,
                size,
            });
            let case = format!("{shape:?} to {size}");
            let y_shape = [count, shape[1], size, size];
            on.agree(&case, &y?, &y_shape, &expected)?;
        }
    }
    Ok(())
}

fn a_crop_of_the_whole_image_at_its_own_size_changes_nothing(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(2);
    let shape = [2, 3, 12, 12];
    let x = pixels(&mut rng, shape);
    let mut expected = Expected::default();
    for &x in &x {
        // A GPU divides the weight by itself, with an error of up to 2.5 ulp.
        expected.push(f64::from(x), 5.0 * U * f64::from(x));
    }
    let crops = [0, 1].map(|image| ResizedCrop {
        image,
        top: 0,
        left: 0,
        height: 12,
        width: 12,
        flip: 0,
    });
    for on in tester.all() {
        let y = on.run(ResizedCrops {
            x: &on.put(&x, &shape)?,
            crops: &crops,
            size: 12,
        });
        on.agree("of the whole image", &y?, &shape, &expected)?;
    }
    Ok(())
}
