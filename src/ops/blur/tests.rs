//! Blurred images against a float64 loop over both dimensions at once.

use super::{GaussianBlur, cases};
use crate::Device;
use crate::testing::{
    check_cases, devices, pixels, put, put_u32, random, refused_everywhere, same_bits, zeros,
};

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

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
