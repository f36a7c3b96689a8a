//! What does not fit is refused, by every device with the same words.

use parallax::device::kernels::{
    ColorStep, ColorTransform, HostSlice, NoiseKey, PaddedCrop, ResizedCrop,
};
use parallax::device::{Device, upload_f32, upload_u32};
use parallax::error::Result;
use parallax::tensor::{DType, Tensor};

use crate::devices;

const CROP: ResizedCrop = ResizedCrop {
    image: 0,
    top: 0,
    left: 0,
    height: 4,
    width: 5,
    flip: 0,
};

/// A call that must fail, and a part of its message.
type Call = (fn(&Device) -> Result<()>, &'static str);

fn images(device: &Device, shape: [usize; 4]) -> Tensor {
    device.zeros(&shape, DType::F32).unwrap()
}

fn crop(device: &Device, crop: ResizedCrop, size: usize) -> Result<()> {
    let x = images(device, [2, 3, 4, 5]);
    device.resized_crop(&x, &[crop], size).map(drop)
}

fn color(device: &Device, step: ColorStep, factor: f32) -> Result<()> {
    let x = images(device, [1, 3, 4, 5]);
    let transform = ColorTransform::new(&[(step, factor)]);
    device.color_transform(&x, &[transform]).map(drop)
}

fn pad(device: &Device, padding: usize, top: u32, left: u32) -> Result<()> {
    let crop = PaddedCrop { top, left, flip: 0 };
    let x = images(device, [1, 3, 4, 5]);
    device.padded_crop(&x, padding, &[crop]).map(drop)
}

fn gather(device: &Device, stored: &Tensor, out: [usize; 4]) -> Result<()> {
    device.gather_images(stored, 0, &[0, 1], &images(device, out))
}

fn noise(device: &Device, low: f32, high: f32) -> Result<()> {
    let key = NoiseKey { seed: 1, stream: 2 };
    device.uniform(key, low, high, &[3]).map(drop)
}

const CALLS: &[Call] = &[
    (
        |d| crop(d, ResizedCrop { image: 2, ..CROP }, 8),
        "batch of 2",
    ),
    (|d| crop(d, ResizedCrop { height: 0, ..CROP }, 8), "4 x 5"),
    (|d| crop(d, ResizedCrop { width: 0, ..CROP }, 8), "4 x 5"),
    (|d| crop(d, ResizedCrop { top: 1, ..CROP }, 8), "top: 1"),
    (
        |d| {
            crop(
                d,
                ResizedCrop {
                    left: u32::MAX,
                    ..CROP
                },
                8,
            )
        },
        "left: 4294967295",
    ),
    (|d| crop(d, CROP, 0), "at least 1"),
    (|d| crop(d, CROP, 20_000), "16384"),
    (
        |d| {
            let x = upload_u32(d, &[0; 60], &[1, 3, 4, 5])?;
            d.resized_crop(&x, &[CROP], 4).map(drop)
        },
        "U32",
    ),
    (|d| color(d, ColorStep::Brightness, -0.1), "at least 0"),
    (|d| color(d, ColorStep::Contrast, f32::NAN), "NaN"),
    (|d| color(d, ColorStep::Saturation, f32::INFINITY), "inf"),
    (|d| color(d, ColorStep::Hue, 0.51), "0.51"),
    (
        |d| {
            d.color_transform(&images(d, [2, 3, 4, 4]), &[ColorTransform::new(&[])])
                .map(drop)
        },
        "1 parameters were given for 2 images",
    ),
    (
        |d| {
            d.color_transform(&images(d, [1, 1, 4, 4]), &[ColorTransform::new(&[])])
                .map(drop)
        },
        "three channels",
    ),
    (
        |d| {
            d.normalize(&images(d, [1, 3, 2, 2]), [0.0; 3], [1.0, 0.0, 1.0])
                .map(drop)
        },
        "above 0",
    ),
    (
        |d| {
            d.normalize(&images(d, [1, 4, 2, 2]), [0.0; 3], [1.0; 3])
                .map(drop)
        },
        "three channels",
    ),
    (|d| pad(d, 1, 3, 0), "padded by 1"),
    (|d| pad(d, 1, 0, 3), "padded by 1"),
    (|d| pad(d, 6, 0, 0), "padding 6"),
    (
        |d| d.padded_crop(&images(d, [2, 3, 4, 4]), 1, &[]).map(drop),
        "0 parameters",
    ),
    (
        |d| d.rotate90(&images(d, [1, 3, 4, 5]), &[0]).map(drop),
        "square",
    ),
    (
        |d| d.rotate90(&images(d, [1, 3, 4, 4]), &[4]).map(drop),
        "0 to 3",
    ),
    (
        |d| d.rotate90(&images(d, [1, 3, 4, 4]), &[0, 1]).map(drop),
        "2 parameters",
    ),
    (
        |d| {
            gather(
                d,
                &d.upload(HostSlice::U8(&[0; 24]), &[2, 3, 2, 2])?,
                [2, 3, 2, 3],
            )
        },
        "[2, 3, 2, 2]",
    ),
    (
        |d| gather(d, &upload_f32(d, &[0.0; 24], &[2, 3, 2, 2])?, [2, 3, 2, 2]),
        "U8",
    ),
    (|d| noise(d, 1.0, 0.0), "low 1"),
    (|d| noise(d, 0.0, f32::INFINITY), "inf"),
];

#[test]
fn what_does_not_fit_is_refused() {
    for (number, (call, part)) in CALLS.iter().enumerate() {
        let messages = devices::all().map(|(name, device)| {
            call(&device)
                .expect_err(&format!("call {number} on {name}"))
                .to_string()
        });
        assert!(messages[0].contains(part), "call {number}: {}", messages[0]);
        assert!(
            messages.iter().all(|message| *message == messages[0]),
            "call {number}: {messages:?}"
        );
    }
}
