//! Colour changes against float64.

use super::{ColorStep, ColorTransform, ColorTransforms};
use crate::error::Result;
use crate::philox::Philox;
use crate::testing::accuracy::U;
use crate::testing::{Expected, Tester, pixels};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    each_change_alone(tester)?;
    changes_in_any_order_and_number(tester)
}

type Pixel = [f64; 3];

fn luma(p: Pixel) -> f64 {
    0.2989 * p[0] + 0.587 * p[1] + 0.114 * p[2]
}

fn blend(p: Pixel, factor: f64, other: f64) -> Pixel {
    p.map(|v| (factor * v + (1.0 - factor) * other).clamp(0.0, 1.0))
}

/// Adds `turn` to the hue, by the formula of HSV without sectors: channel n (5, 3, 1 for red,
/// green, blue) is `v - range max(0, min(k, 4 - k, 1))` with `k = (n + 6 hue) mod 6`.
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

/// Applies one step to an image whose pixels have this error bound, and returns the new bound.
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
            // A channel changes by the value and by up to two differences of channels. Hue and turn
            // are rounded at the size of one turn, six sixths of the range: about eight roundings.
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

fn random_factor(rng: &mut Philox, step: ColorStep) -> f32 {
    match step {
        ColorStep::Hue => rng.uniform(-0.5, 0.5),
        _ => rng.uniform(0.0, 1.8),
    }
}

/// One transform of up to five steps in random order for each of `n` images.
pub(super) fn random_transforms(rng: &mut Philox, n: usize) -> Vec<Vec<(ColorStep, f32)>> {
    let transform = |_| {
        let mut steps = STEPS;
        rng.shuffle(&mut steps);
        let count = rng.below(6) as usize;
        steps[..count]
            .iter()
            .map(|&step| (step, random_factor(rng, step)))
            .collect()
    };
    (0..n).map(transform).collect()
}

/// Fails unless each device changes random images as the float64 loop does.
fn check_agreement(
    tester: &Tester,
    rng: &mut Philox,
    [n, h, w]: [usize; 3],
    transforms: &[Vec<(ColorStep, f32)>],
) -> Result<()> {
    let (shape, plane) = ([n, 3, h, w], h * w);
    let x = pixels(rng, shape);
    let mut expected = Expected::default();
    for (image, steps) in x.chunks(3 * plane).zip(transforms) {
        let mut image: Vec<Pixel> = (0..plane)
            .map(|i| [0, 1, 2].map(|c| f64::from(image[c * plane + i])))
            .collect();
        let mut bound = 0.0;
        for &(step, factor) in steps {
            bound = change(&mut image, bound, step, factor);
        }
        for channel in 0..3 {
            image.iter().for_each(|p| expected.push(p[channel], bound));
        }
    }
    let given: Vec<_> = transforms.iter().map(|t| ColorTransform::new(t)).collect();
    for on in tester.all() {
        let y = on.run(ColorTransforms {
            x: &on.put(&x, &shape)?,
            transforms: &given,
        });
        let case = format!("{transforms:?} of {shape:?}");
        on.agree(&case, &y?, &shape, &expected)?;
    }
    Ok(())
}

fn each_change_alone(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(10);
    for shape in [[1, 1, 1], [2, 3, 5], [3, 32, 32], [2, 17, 61]] {
        for step in STEPS {
            let transforms: Vec<_> = (0..shape[0])
                .map(|_| vec![(step, random_factor(&mut rng, step))])
                .collect();
            check_agreement(tester, &mut rng, shape, &transforms)?;
        }
    }
    Ok(())
}

fn changes_in_any_order_and_number(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(11);
    // The last one is cut into slices if bindings are small.
    for shape in [[9, 6, 7], [5, 16, 16], [17, 19, 33]] {
        let transforms = random_transforms(&mut rng, shape[0]);
        check_agreement(tester, &mut rng, shape, &transforms)?;
    }
    Ok(())
}
