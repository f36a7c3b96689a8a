//! Views: equal keys give equal views on every device, and the same bits twice on one device.

mod golden;

use super::{
    ImageStore, PaddedCropAugmentation, RandomBlur, SimClrAugmentation, ViewKey, ViewParameters,
};
use crate::nn::CIFAR10_STATISTICS;
use crate::ops::{GaussianBlur, Normalize};
use crate::philox::Philox;
use crate::testing::accuracy::U;
use crate::testing::{Expected, agree, devices, get, random, wide};
use crate::{DType, Device, Tensor};

const SAMPLES: [u32; 9] = [3, 17, 0, 11, 4, 29, 8, 8, 21];

/// Smooth byte images with some noise, 3 x 40 x 36.
fn smooth_bytes(rng: &mut Philox) -> Vec<u8> {
    (0..30 * 3 * 40 * 36)
        .map(|i| {
            let (image, row, column) = (i / (40 * 36), i / 36 % 40, i % 36);
            let wave = ((image * 5 + row * 2 + column) as f32 / 9.0).sin();
            (127.0 + 110.0 * wave + rng.uniform(-15.0, 15.0)) as u8
        })
        .collect()
}

/// The images of the samples.
fn images(device: &Device, bytes: &[u8]) -> Tensor {
    let store = ImageStore::new(device, bytes, [3, 40, 36]).expect("whole images");
    store.gather(&SAMPLES).expect("images of the store")
}

/// These values, each with this bound.
fn within(values: &[f32], bound: f64) -> Expected {
    let bound = vec![bound; values.len()];
    Expected {
        value: wide(values),
        bound,
        ..Expected::default()
    }
}

#[test]
fn equal_keys_give_equal_views_on_every_device() {
    let bytes = smooth_bytes(&mut random(30));
    let blurring = SimClrAugmentation {
        blur: Some(RandomBlur::default()),
        ..SimClrAugmentation::sound(32)
    };
    for augmentation in [
        SimClrAugmentation::sound(32),
        SimClrAugmentation::paper(32),
        blurring,
    ] {
        let views = |device: &Device, parameters: &[ViewParameters]| {
            let views = augmentation.apply(device, &images(device, &bytes), parameters);
            views.expect("views")
        };
        for step in 0..4 {
            let key = ViewKey {
                seed: 5,
                step,
                view: step % 2,
            };
            let parameters = augmentation.draw(key, &SAMPLES, 40, 36);
            let expected = within(&get(&views(&devices::cpu(), &parameters)), 1e-4);
            for (name, device) in devices::all() {
                let again = augmentation.draw(key, &SAMPLES, 40, 36);
                let y = views(&device, &again);
                let shape = [SAMPLES.len(), 3, 32, 32];
                agree(&format!("{key:?} on {name}"), &y, &shape, &expected);
                let is_equal = get(&y) == get(&views(&device, &again));
                assert!(is_equal, "{key:?} on {name}: other bits the second time");
            }
        }
    }
}

/// A view with blur and the view of the same key without it differ in the blur alone. The blur
/// comes after the colour changes and before normalisation.
#[test]
fn a_view_is_blurred_after_its_colours_changed() {
    let bytes = smooth_bytes(&mut random(32));
    let sharp = SimClrAugmentation {
        normalize: None,
        ..SimClrAugmentation::sound(32)
    };
    let blurring = SimClrAugmentation {
        blur: Some(RandomBlur::default()),
        ..SimClrAugmentation::sound(32)
    };
    let key = ViewKey {
        seed: 5,
        step: 3,
        view: 1,
    };
    for (name, device) in devices::all() {
        let images = images(&device, &bytes);
        let parameters = blurring.draw(key, &SAMPLES, 40, 36);
        let sigmas: Vec<f32> = parameters.iter().map(|view| view.blur).collect();
        assert!(sigmas.contains(&0.0) && sigmas.iter().any(|&sigma| sigma > 0.0));
        let mut without = parameters.clone();
        without.iter_mut().for_each(|view| view.blur = 0.0);
        assert_eq!(without, sharp.draw(key, &SAMPLES, 40, 36));
        let x = &sharp.apply(&device, &images, &without).expect(name);
        let blur = GaussianBlur {
            x,
            kernel_size: 3,
            sigmas: &sigmas,
        };
        let x = &device.run(blur).expect(name);
        let (mean, std) = CIFAR10_STATISTICS;
        let expected = device.run(Normalize { x, mean, std }).expect(name);
        let views = blurring.apply(&device, &images, &parameters).expect(name);
        assert_eq!(get(&views), get(&expected), "{name}");
    }
}

#[test]
fn a_padded_crop_is_equal_on_every_device() {
    let bytes = smooth_bytes(&mut random(31));
    let augmentation = PaddedCropAugmentation::default();
    let key = ViewKey {
        seed: 9,
        step: 2,
        view: 0,
    };
    let crops = augmentation.draw(key, &SAMPLES);
    let cropped = |device: &Device| {
        let crops = augmentation.apply(device, &images(device, &bytes), &crops);
        crops.expect("crops")
    };
    let expected = within(&get(&cropped(&devices::cpu())), 5e-7);
    for (name, device) in devices::all() {
        let shape = [SAMPLES.len(), 3, 40, 36];
        let case = format!("padded crop on {name}");
        agree(&case, &cropped(&device), &shape, &expected);
    }
}

#[test]
fn a_store_returns_the_images_of_the_indices() {
    let mut rng = random(21);
    let (count, shape) = (57, [3, 6, 5]);
    let bytes: Vec<u8> = (0..count * 90).map(|_| rng.next_u32() as u8).collect();
    let indices = [56, 0, 3, 3, 41];
    let mut expected = Expected::default();
    for i in indices {
        for &byte in &bytes[i as usize * 90..][..90] {
            let value = f64::from(byte) / 255.0;
            expected.push(value, 5.0 * U * value);
        }
    }
    for (name, device) in devices::all() {
        let store = ImageStore::new(&device, &bytes, shape).expect(name);
        let batch = store.gather(&indices).expect(name);
        assert_eq!(batch.dtype(), DType::F32, "{name}");
        agree(name, &batch, &[5, 3, 6, 5], &expected);
    }
}
