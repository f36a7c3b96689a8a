//! Colour changes against float64.

use parallax::device::kernels::{ColorStep, ColorTransform};
use parallax::device::philox::Philox;

use crate::compare::{U, agree, get, pixels, put, random};
use crate::devices;

type Pixel = [f64; 3];

fn luma(p: Pixel) -> f64 {
    0.2989 * p[0] + 0.587 * p[1] + 0.114 * p[2]
}

fn blend(p: Pixel, factor: f64, other: f64) -> Pixel {
    p.map(|v| (factor * v + (1.0 - factor) * other).clamp(0.0, 1.0))
}

/// The hue turned by `turn`, by the sector-free formula of HSV: channel n (5, 3, 1 for red, green, blue) is
/// `v - range max(0, min(k, 4 - k, 1))` with `k = (n + 6 hue) mod 6`.
fn turn_hue(p: Pixel, turn: f64) -> Pixel {
    let value = p[0].max(p[1]).max(p[2]);
    let range = value - p[0].min(p[1]).min(p[2]);
    let hue6 = if range == 0.0 {
        0.0
    } else if value == p[0] {
        (p[1] - p[2]) / range
    } else if value == p[1] {
        2.0 + (p[2] - p[0]) / range
    } else {
        4.0 + (p[0] - p[1]) / range
    };
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue6 + 6.0 * turn).rem_euclid(6.0);
        value - range * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// One step over an image, and what becomes of an error that its pixels carry already.
fn change(image: &mut [Pixel], error: f64, step: ColorStep, factor: f32) -> f64 {
    let f = f64::from(factor);
    let spread = f + (1.0 - f).abs();
    let roundings = 8.0 * U * spread.max(1.0);
    let each = |image: &mut [Pixel], map: &dyn Fn(Pixel) -> Pixel| {
        image.iter_mut().for_each(|p| *p = map(*p));
    };
    match step {
        ColorStep::Nothing => error,
        ColorStep::Brightness => {
            each(image, &|p| blend(p, f, 0.0));
            f * error + roundings
        }
        ColorStep::Contrast => {
            let count = image.len() as f64;
            let mean = image.iter().map(|&p| luma(p)).sum::<f64>() / count;
            each(image, &|p| blend(p, f, mean));
            let sum = 4.0 * count.sqrt() * U * mean;
            spread * error + (1.0 - f).abs() * sum + roundings
        }
        ColorStep::Saturation => {
            each(image, &|p| blend(p, f, luma(p)));
            spread * error + roundings
        }
        ColorStep::Hue => {
            each(image, &|p| turn_hue(p, f));
            // A channel moves by the value, and by up to two differences of channels. Hue and turn are rounded at the
            // size of one turn, six sixths of the range: some eight roundings.
            5.0 * error + 6.0 * 8.0 * U
        }
        ColorStep::Grayscale => {
            each(image, &|p| [luma(p); 3]);
            error + 4.0 * U
        }
    }
}

const STEPS: [ColorStep; 5] = [
    ColorStep::Brightness,
    ColorStep::Contrast,
    ColorStep::Saturation,
    ColorStep::Hue,
    ColorStep::Grayscale,
];

fn factor(rng: &mut Philox, step: ColorStep) -> f32 {
    match step {
        ColorStep::Hue => rng.uniform(-0.5, 0.5),
        _ => rng.uniform(0.0, 1.8),
    }
}

/// Fails unless each device changes random images as the float64 loop does.
fn check(rng: &mut Philox, [n, h, w]: [usize; 3], transforms: &[Vec<(ColorStep, f32)>]) {
    let (shape, plane) = ([n, 3, h, w], h * w);
    let x = pixels(rng, shape);
    let (mut expected, mut bounds) = (Vec::new(), Vec::new());
    for (image, steps) in x.chunks(3 * plane).zip(transforms) {
        let mut image: Vec<Pixel> = (0..plane)
            .map(|i| [0, 1, 2].map(|c| f64::from(image[c * plane + i])))
            .collect();
        let mut bound = 0.0;
        for &(step, factor) in steps {
            bound = change(&mut image, bound, step, factor);
        }
        for channel in 0..3 {
            expected.extend(image.iter().map(|p| p[channel]));
        }
        bounds.push(bound);
    }
    let given: Vec<_> = transforms.iter().map(|t| ColorTransform::new(t)).collect();
    for (name, device) in devices::all() {
        let x = put(&device, &x, &shape);
        let y = device.color_transform(&x, &given).unwrap();
        assert_eq!(y.shape(), shape);
        let case = format!("{transforms:?} of {shape:?} on {name}");
        agree(&case, &get(&device, &y), &expected, |i| {
            bounds[i / (3 * plane)] + f64::MIN_POSITIVE
        });
    }
}

#[test]
fn each_change_alone() {
    let mut rng = random(10);
    for shape in [[1, 1, 1], [2, 3, 5], [3, 32, 32], [2, 17, 61]] {
        for step in STEPS {
            let transforms: Vec<_> = (0..shape[0])
                .map(|_| vec![(step, factor(&mut rng, step))])
                .collect();
            check(&mut rng, shape, &transforms);
        }
    }
}

#[test]
fn changes_in_any_order_and_number() {
    let mut rng = random(11);
    // The last is sliced on the device with small bindings.
    for shape in [[9, 6, 7], [5, 16, 16], [17, 19, 33]] {
        let transforms: Vec<_> = (0..shape[0])
            .map(|_| {
                let mut steps = STEPS;
                rng.shuffle(&mut steps);
                let count = rng.below(6) as usize;
                steps[..count]
                    .iter()
                    .map(|&step| (step, factor(&mut rng, step)))
                    .collect()
            })
            .collect();
        check(&mut rng, shape, &transforms);
    }
}
