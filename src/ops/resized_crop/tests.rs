//! Resized crops against dense float64 filters.

use super::cases::{self, random_crop};
use super::{ResizedCrop, ResizedCrops};
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
        let crops: Vec<_> = (0..20).map(|_| random_crop(&mut rng, shape)).collect();
        let crops = ResizedCrops {
            x,
            crops: &crops,
            size: 29,
        };
        [("y", device.run(crops).expect("crops"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let good = ResizedCrop {
        image: 0,
        top: 0,
        left: 0,
        height: 4,
        width: 5,
        flip: 0,
    };
    let run = |device: &Device, crop, size| {
        let x = &zeros(device, &[2, 3, 4, 5]);
        let crops = &[crop];
        device.run(ResizedCrops { x, crops, size })
    };
    for (part, crop) in [
        ("batch of 2", ResizedCrop { image: 2, ..good }),
        ("4 x 5", ResizedCrop { height: 0, ..good }),
        ("4 x 5", ResizedCrop { width: 0, ..good }),
        ("top: 1", ResizedCrop { top: 1, ..good }),
        (
            "left: 4294967295",
            ResizedCrop {
                left: u32::MAX,
                ..good
            },
        ),
    ] {
        refused_everywhere(part, |device| run(device, crop, 8));
    }
    refused_everywhere("at least 1", |device| run(device, good, 0));
    refused_everywhere("16384", |device| run(device, good, 20_000));
    refused_everywhere("U32", |device| {
        let x = &put_u32(device, &[0; 60], &[1, 3, 4, 5]);
        let (crops, size) = (&[good], 4);
        device.run(ResizedCrops { x, crops, size })
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
