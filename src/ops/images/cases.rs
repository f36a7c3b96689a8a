//! Operations on images against loops.

use super::{GatherImages, Normalize, PaddedCrop, PaddedCrops, Rotate90};
use crate::error::Result;
use crate::testing::accuracy::U;
use crate::testing::{Expected, Tester, normal_leaf, pixels};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    bytes_become_floats_and_other_rows_are_unchanged(tester)?;
    normalization(tester)?;
    gradient_of_the_normalization(tester)?;
    padded_crops(tester)?;
    quarter_turns(tester)
}

fn bytes_become_floats_and_other_rows_are_unchanged(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(20);
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
        for on in tester.all() {
            let images = &on.put(&bytes, &[n, c, h, w])?;
            let out = &on.put(&vec![7.0; shape.iter().product()], &shape)?;
            let gather = GatherImages {
                images,
                first,
                indices: &indices,
                out,
            };
            on.run(gather)?;
            let case = format!("of {n} x {c} x {h} x {w}");
            on.agree(&case, out, &shape, &expected)?;
        }
    }
    Ok(())
}

pub(super) const MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];

pub(super) const STD: [f32; 3] = [0.2023, 0.1994, 0.2010];

fn normalization(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(22);
    for shape in [[1, 3, 1, 1], [3, 3, 7, 5], [40, 3, 13, 17]] {
        let x = pixels(&mut rng, shape);
        let mut expected = Expected::default();
        for (i, &x) in x.iter().enumerate() {
            let channel = i / (shape[2] * shape[3]) % 3;
            let value = (f64::from(x) - f64::from(MEAN[channel])) / f64::from(STD[channel]);
            expected.push(value, 7.0 * U * value.abs());
        }
        for on in tester.all() {
            let x = &on.put(&x, &shape)?;
            let (mean, std) = (MEAN, STD);
            let y = on.run(Normalize { x, mean, std })?;
            let case = format!("{shape:?}");
            on.agree(&case, &y, &shape, &expected)?;
        }
    }
    Ok(())
}

fn gradient_of_the_normalization(tester: &Tester) -> Result<()> {
    tester.gradients("normalize", &[normal_leaf(71, &[2, 3, 2, 3])], |x| {
        x[0].normalize([0.5, 0.4, 0.3], [0.2, 0.5, 1.5])
    })
}

fn padded_crops(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(23);
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
        for on in tester.all() {
            let y = on.run(PaddedCrops {
                x: &on.put(&x, &shape)?,
                padding,
                crops: &crops,
            });
            let case = format!("{shape:?}");
            on.agree(&case, &y?, &shape, &expected)?;
        }
    }
    Ok(())
}

fn quarter_turns(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(24);
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
        for on in tester.all() {
            let y = on.run(Rotate90 {
                x: &on.put(&x, &shape)?,
                quarter_turns: &turns,
            });
            let case = format!("{shape:?}");
            on.agree(&case, &y?, &shape, &expected)?;
        }
    }
    Ok(())
}
