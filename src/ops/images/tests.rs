//! Operations on images against loops.

use super::cases::{self, MEAN, STD};
use super::{GatherImages, Normalize, PaddedCrop, PaddedCrops, Rotate90};
use crate::testing::{
    check_cases, devices, pixels, put, random, refused_everywhere, same_bits, zeros,
};
use crate::{Device, Tensor};

#[test]
fn results_are_deterministic() {
    let shape = [40, 3, 13, 13];
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let x = &put(device, &pixels(&mut rng, shape), &shape);
        let bytes: Vec<u8> = (0..40 * 3 * 13 * 13)
            .map(|_| rng.next_u32() as u8)
            .collect();
        let out = zeros(device, &shape);
        let indices: Vec<u32> = (0..40).rev().collect();
        let gather = GatherImages {
            images: &Tensor::from_slice(&bytes, &shape, device).expect("images"),
            first: 0,
            indices: &indices,
            out: &out,
        };
        device.run(gather).expect("gathered images");
        let (mean, std) = (MEAN, STD);
        let crop = PaddedCrop {
            top: 1,
            left: 3,
            flip: 1,
        };
        let normalized = device.run(Normalize { x, mean, std });
        let cropped = device.run(padded(x, 2, &[crop; 40]));
        let rotated = device.run(rotated(x, &[3; 40]));
        [
            ("gather", out),
            ("normalize", normalized.expect("images")),
            ("padded crop", cropped.expect("images")),
            ("rotate90", rotated.expect("images")),
        ]
    });
}

fn padded<'a>(x: &'a Tensor, padding: usize, crops: &'a [PaddedCrop]) -> PaddedCrops<'a> {
    PaddedCrops { x, padding, crops }
}

fn rotated<'a>(x: &'a Tensor, quarter_turns: &'a [u32]) -> Rotate90<'a> {
    Rotate90 { x, quarter_turns }
}

#[test]
fn arguments_of_a_gather_that_do_not_fit_are_refused() {
    let gather = |device: &Device, images: &Tensor, out: [usize; 4]| {
        device.run(GatherImages {
            images,
            first: 0,
            indices: &[0, 1],
            out: &zeros(device, &out),
        })
    };
    refused_everywhere("[2, 3, 2, 2]", |device| {
        let images = Tensor::from_slice(&[0u8; 24], &[2, 3, 2, 2], device)?;
        gather(device, &images, [2, 3, 2, 3])
    });
    refused_everywhere("U8", |device| {
        gather(device, &zeros(device, &[2, 3, 2, 2]), [2, 3, 2, 2])
    });
}

#[test]
fn arguments_of_a_normalization_that_do_not_fit_are_refused() {
    let normalize = |device: &Device, channels, std| {
        let (x, mean) = (&zeros(device, &[1, channels, 2, 2]), [0.0; 3]);
        device.run(Normalize { x, mean, std })
    };
    refused_everywhere("above 0", |device| normalize(device, 3, [1.0, 0.0, 1.0]));
    refused_everywhere("three channels", |device| normalize(device, 4, [1.0; 3]));
}

#[test]
fn arguments_of_a_padded_crop_that_do_not_fit_are_refused() {
    let crop = |device: &Device, padding, top, left| {
        let crop = PaddedCrop { top, left, flip: 0 };
        device.run(padded(&zeros(device, &[1, 3, 4, 5]), padding, &[crop]))
    };
    refused_everywhere("padded by 1", |device| crop(device, 1, 3, 0));
    refused_everywhere("padded by 1", |device| crop(device, 1, 0, 3));
    refused_everywhere("padding 6", |device| crop(device, 6, 0, 0));
    refused_everywhere("0 parameters", |device| {
        device.run(padded(&zeros(device, &[2, 3, 4, 4]), 1, &[]))
    });
}

#[test]
fn arguments_of_a_rotation_that_do_not_fit_are_refused() {
    let rotate = |device: &Device, width, turns: &[u32]| {
        device.run(rotated(&zeros(device, &[1, 3, 4, width]), turns))
    };
    refused_everywhere("square", |device| rotate(device, 5, &[0]));
    refused_everywhere("0 to 3", |device| rotate(device, 4, &[4]));
    refused_everywhere("2 parameters", |device| rotate(device, 4, &[0, 1]));
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
