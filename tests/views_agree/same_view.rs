//! The same key gives the same view on every device, and the same bits twice on one.

use parallax::augment::{
    ImageStore, PaddedCropAugmentation, SimClrAugmentation, ViewKey, ViewParameters,
};
use parallax::device::Device;
use parallax::device::philox::Philox;

use crate::compare::{agree, get, random};
use crate::devices;

const SAMPLES: [u32; 9] = [3, 17, 0, 11, 4, 29, 8, 8, 21];

/// Smooth byte images with some noise, 3 x 40 x 36.
fn bytes(rng: &mut Philox) -> Vec<u8> {
    (0..30 * 3 * 40 * 36)
        .map(|i| {
            let (image, row, column) = (i / (40 * 36), i / 36 % 40, i % 36);
            let wave = ((image * 5 + row * 2 + column) as f32 / 9.0).sin();
            (127.0 + 110.0 * wave + rng.uniform(-15.0, 15.0)) as u8
        })
        .collect()
}

fn views(
    device: &Device,
    bytes: &[u8],
    augmentation: &SimClrAugmentation,
    parameters: &[ViewParameters],
) -> Vec<f32> {
    let store = ImageStore::new(device, bytes, [3, 40, 36]).unwrap();
    let images = store.gather(&SAMPLES).unwrap();
    let y = augmentation.apply(device, &images, parameters).unwrap();
    assert_eq!(y.shape(), [SAMPLES.len(), 3, 32, 32]);
    get(device, &y)
}

#[test]
fn the_same_key_gives_the_same_view_everywhere() {
    let bytes = bytes(&mut random(30));
    for augmentation in [SimClrAugmentation::sound(32), SimClrAugmentation::paper(32)] {
        for step in 0..4 {
            let key = ViewKey {
                seed: 5,
                step,
                view: step % 2,
            };
            let parameters = augmentation.draw(key, &SAMPLES, 40, 36);
            let cpu = views(&devices::cpu(), &bytes, &augmentation, &parameters);
            let expected: Vec<f64> = cpu.iter().copied().map(f64::from).collect();
            for (name, device) in devices::all() {
                let again = augmentation.draw(key, &SAMPLES, 40, 36);
                let y = views(&device, &bytes, &augmentation, &again);
                agree(&format!("{key:?} on {name}"), &y, &expected, |_| 1e-4);
                let twice = views(&device, &bytes, &augmentation, &again);
                assert!(y == twice, "{key:?} on {name}: other bits the second time");
            }
        }
    }
}

#[test]
fn a_padded_crop_is_the_same_everywhere() {
    let bytes = bytes(&mut random(31));
    let augmentation = PaddedCropAugmentation::default();
    let key = ViewKey {
        seed: 9,
        step: 2,
        view: 0,
    };
    let crops = augmentation.draw(key, &SAMPLES);
    let results = devices::all().map(|(_, device)| {
        let store = ImageStore::new(&device, &bytes, [3, 40, 36]).unwrap();
        let images = store.gather(&SAMPLES).unwrap();
        get(
            &device,
            &augmentation.apply(&device, &images, &crops).unwrap(),
        )
    });
    let expected: Vec<f64> = results[0].iter().copied().map(f64::from).collect();
    for y in &results {
        agree("padded crop", y, &expected, |_| 5e-7);
    }
}
