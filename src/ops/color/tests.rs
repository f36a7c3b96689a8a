//! Colour changes against float64.

use super::cases::{self, random_transforms};
use super::{ColorStep, ColorTransform, ColorTransforms};
use crate::Device;
use crate::testing::{
    check_cases, devices, pixels, put, random, refused_everywhere, same_bits, zeros,
};

#[test]
fn results_are_deterministic() {
    let shape = [17, 3, 19, 33];
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let x = &put(device, &pixels(&mut rng, shape), &shape);
        let transforms: Vec<_> = random_transforms(&mut rng, 17)
            .iter()
            .map(|steps| ColorTransform::new(steps))
            .collect();
        let transforms = &transforms;
        let y = device.run(ColorTransforms { x, transforms });
        [("y", y.expect("images"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let run = |device: &Device, shape: [usize; 4], transform| {
        let x = &zeros(device, &shape);
        let transforms = &[transform];
        device.run(ColorTransforms { x, transforms })
    };
    for (part, step, factor) in [
        ("0 or more", ColorStep::Brightness, -0.1),
        ("NaN", ColorStep::Contrast, f32::NAN),
        ("inf", ColorStep::Saturation, f32::INFINITY),
        ("0.51", ColorStep::Hue, 0.51),
    ] {
        let transform = ColorTransform::new(&[(step, factor)]);
        refused_everywhere(part, |device| run(device, [1, 3, 4, 5], transform));
    }
    let nothing = ColorTransform::new(&[]);
    refused_everywhere("1 parameters were given for 2 images", |device| {
        run(device, [2, 3, 4, 4], nothing)
    });
    refused_everywhere("three channels", |device| {
        run(device, [1, 1, 4, 4], nothing)
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
