//! What the generated data set promises: balanced, the same for one seed, and not to be had from
//! raw pixels.

use parallax::data::{DataKind, Dataset, load};

fn shapes(seed: u64) -> Dataset {
    load(DataKind::Shapes, None, seed).unwrap()
}

#[test]
fn classes_are_balanced() {
    let data = shapes(0);
    assert_eq!((data.name.as_str(), data.classes.len()), ("shapes", 10));
    for (split, size) in [(&data.train, 4_000), (&data.test, 1_000)] {
        assert_eq!((split.len(), split.height, split.width), (size, 32, 32));
        let labels = split.labels.as_ref().unwrap();
        for class in 0..10 {
            assert_eq!(
                labels.iter().filter(|&&label| label == class).count(),
                size / 10
            );
        }
    }
}

#[test]
fn the_inverted_set_is_smaller_balanced_and_another() {
    let data = load(DataKind::ShapesInverted, None, 0).unwrap();
    assert_eq!(data.classes, shapes(0).classes);
    for (split, size) in [(&data.train, 2_000), (&data.test, 500)] {
        assert_eq!((split.len(), split.height, split.width), (size, 24, 24));
        let labels = split.labels.as_ref().unwrap();
        assert!((0..size).all(|i| labels[i] == (i % 10) as u32));
        let mean =
            |bytes: &[u8]| bytes.iter().map(|&b| f64::from(b)).sum::<f64>() / bytes.len() as f64;
        assert!(
            mean(&split.pixels().unwrap()) > mean(&shapes(0).test.pixels().unwrap()) + 40.0,
            "light ground"
        );
    }
}

#[test]
fn the_seed_decides_every_byte() {
    let (first, again, other) = (shapes(3), shapes(3), shapes(4));
    assert_eq!(first.train.pixels().unwrap(), again.train.pixels().unwrap());
    assert_eq!(first.digest, again.digest);
    assert_ne!(first.digest, other.digest);
    // Nor does the test set repeat the training set.
    assert_ne!(first.train.image(0).unwrap(), first.test.image(0).unwrap());
}

/// The bytes are the same on every platform, and change only by intention.
#[test]
fn the_digest_is_that_of_the_first_release() {
    assert_eq!(
        shapes(0).digest,
        "ae1695401cba7872d1d163e1a3cfadc8745ada13ee29bdef24be574e81eeb482"
    );
}

/// Softmax regression on the 3,072 bytes, trained by gradient descent with momentum and weight
/// decay; the best test accuracy of any epoch, so that no choice of stopping time would do better.
#[test]
fn a_linear_classifier_on_raw_pixels_stays_under_40_percent() {
    let data = shapes(0);
    let best = best_linear_accuracy(&data, 10);
    eprintln!("softmax regression on raw pixels: {:.1} %", 100.0 * best);
    assert!(best < 0.4, "{best}");
}

/// The same classifier does find a class that raw pixels tell, so the test above can fail.
#[test]
fn the_linear_classifier_learns_what_pixels_tell() {
    let mut data = shapes(0);
    for split in [&mut data.train, &mut data.test] {
        let bytes = split.image_bytes();
        let labels = split.labels.clone().unwrap();
        let mut pixels = split.pixels().unwrap().into_owned();
        for (image, label) in pixels.chunks_exact_mut(bytes).zip(labels) {
            // A spot of 4 x 4 dark pixels whose place is the class.
            for row in 0..4 {
                let start = (label as usize / 4 * 8 + row) * 32 + label as usize % 4 * 8;
                for plane in 0..3 {
                    image[plane * 1024 + start..][..4].fill(0);
                }
            }
        }
        split.images = pixels.into();
    }
    let best = best_linear_accuracy(&data, 3);
    assert!(best > 0.6, "{best}");
}

const CLASSES: usize = 10;
const BATCH: usize = 50;

fn best_linear_accuracy(data: &Dataset, epochs: usize) -> f64 {
    let pixels = data.train.image_bytes();
    let scaled = |images: &[u8]| -> Vec<f32> {
        images.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect()
    };
    let [train, test] = [&data.train, &data.test].map(|split| scaled(&split.pixels().unwrap()));
    let labels = data.train.labels.as_ref().unwrap();
    let mut weight = vec![0.0f32; CLASSES * pixels];
    let mut velocity = vec![0.0f32; CLASSES * pixels];
    let mut bias = [0.0f32; CLASSES];
    let mut best: f64 = 0.0;
    for epoch in 0..epochs {
        let rate = 2e-3 * (1.0 - epoch as f32 / epochs as f32);
        for (images, labels) in train
            .chunks_exact(BATCH * pixels)
            .zip(labels.chunks_exact(BATCH))
        {
            let mut gradient = vec![0.0f32; CLASSES * pixels];
            for (image, &label) in images.chunks_exact(pixels).zip(labels) {
                let mut error = softmax(logits(&weight, &bias, image));
                error[label as usize] -= 1.0;
                for class in 0..CLASSES {
                    let scale = error[class] / BATCH as f32;
                    bias[class] -= rate * scale;
                    for (g, &x) in gradient[class * pixels..][..pixels].iter_mut().zip(image) {
                        *g += scale * x;
                    }
                }
            }
            for ((w, v), g) in weight.iter_mut().zip(&mut velocity).zip(&gradient) {
                *v = 0.9 * *v + g + 1e-3 * *w;
                *w -= rate * *v;
            }
        }
        let labels = data.test.labels.as_ref().unwrap();
        let right = test
            .chunks_exact(pixels)
            .zip(labels)
            .filter(|(image, label)| {
                let scores = logits(&weight, &bias, image);
                let winner = (0..CLASSES).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                winner == Some(**label as usize)
            });
        best = best.max(right.count() as f64 / labels.len() as f64);
    }
    best
}

fn logits(weight: &[f32], bias: &[f32; CLASSES], image: &[f32]) -> [f32; CLASSES] {
    let mut scores = *bias;
    for (score, row) in scores.iter_mut().zip(weight.chunks_exact(image.len())) {
        // Sixteen partial sums, which the compiler turns into vector instructions.
        let mut partial = [0.0f32; 16];
        for (x, w) in image.chunks_exact(16).zip(row.chunks_exact(16)) {
            for lane in 0..16 {
                partial[lane] += x[lane] * w[lane];
            }
        }
        *score += partial.iter().sum::<f32>();
    }
    scores
}

fn softmax(logits: [f32; CLASSES]) -> [f32; CLASSES] {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let exponentials = logits.map(|x| (x - highest).exp());
    let sum: f32 = exponentials.iter().sum();
    exponentials.map(|e| e / sum)
}
