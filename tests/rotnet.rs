//! RotNet: what a batch holds, and its two protocols.

use parallax::augment::{CIFAR10_STATISTICS, PaddedCropAugmentation, ViewKey};
use parallax::data::{self, DataKind, Images, Split};
use parallax::evaluate::rotation::rotation_accuracy;
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::rotnet::{self, RotNet, RotNetNetwork, RotNetSettings};
use parallax::ops::PaddedCrop;
use parallax::train::Trainer;
use parallax::{Device, Error};

fn settings(protocol: Protocol, batch_size: usize) -> RotNetSettings {
    let encoder = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    };
    RotNetSettings::of_protocol(protocol, encoder, batch_size, 5e-4, 3)
}

fn training(
    device: &Device,
    settings: RotNetSettings,
    split: &Split,
) -> Trainer<RotNetNetwork, RotNet> {
    let network = rotnet::network(&settings, device).expect("memory suffices");
    let optimization = settings.optimization;
    let objective = RotNet::new(settings, split, device).expect("the settings fit");
    Trainer::new(network, optimization, objective).expect("memory suffices")
}

/// Two images of 2 x 2 pixels, the same in each channel: 0 1 / 2 3 and 10 11 / 12 13.
fn numbered() -> Split {
    let plane = |first: u8| [first, first + 1, first + 2, first + 3];
    Split {
        images: Images::Held([0, 10].iter().flat_map(|&f| plane(f).repeat(3)).collect()),
        labels: None,
        files: Vec::new(),
        height: 2,
        width: 2,
    }
}

#[test]
fn a_batch_is_its_images_under_all_rotations_counter_clockwise() {
    let device = Device::cpu();
    let whole = RotNetSettings {
        augmentation: PaddedCropAugmentation {
            padding: 0,
            vertical: 0,
            flip: 0.0,
        },
        ..settings(Protocol::Sound, 2)
    };
    let mut objective = RotNet::new(whole, &numbered(), &device).expect("they are square");
    let batch = objective.rotated_batch(0).expect("a batch");
    assert_eq!(batch.shape(), [8, 3, 2, 2]);
    let values = batch.to_vec::<f32>().expect("floats");
    let (mean, std) = CIFAR10_STATISTICS;
    // The first channel's pixels as the numbers that they were.
    let planes: Vec<Vec<u8>> = values
        .chunks(12)
        .map(|image| {
            let number = |&x: &f32| ((x * std[0] + mean[0]) * 255.0).round() as u8;
            image[..4].iter().map(number).collect()
        })
        .collect();
    // Top right comes to the top left: 0 1 / 2 3, then 1 3 / 0 2, 3 2 / 1 0, 2 0 / 3 1.
    let turned = [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]];
    let first = planes[0][0];
    for (k, plane) in planes.iter().enumerate() {
        let offset = if k % 2 == 0 { first } else { 10 - first };
        let expected = turned[k / 2].map(|number| number + offset);
        assert_eq!(plane[..], expected, "row {k}");
    }
}

#[test]
fn images_that_are_not_square_are_refused() {
    let split = Split {
        images: vec![0; 2 * 3 * 2 * 4].into(),
        labels: None,
        files: Vec::new(),
        height: 2,
        width: 4,
    };
    let refused = RotNet::new(settings(Protocol::Sound, 1), &split, &Device::cpu());
    assert!(matches!(refused.err(), Some(Error::Usage(m)) if m.contains("4 x 2")));
}

#[test]
fn borders_are_alike_or_tell_the_rotation() {
    let samples: Vec<u32> = (0..2000).collect();
    for (protocol, vertical) in [(Protocol::Sound, 0..=8), (Protocol::Paper, 2..=6)] {
        let crops = settings(protocol, 1).augmentation.draw(
            ViewKey {
                seed: 1,
                step: 0,
                view: 0,
            },
            &samples,
        );
        let range = |of: fn(&PaddedCrop) -> u32| {
            let all = crops.iter().map(of);
            (all.clone().min().unwrap(), all.max().unwrap())
        };
        assert_eq!(range(|c| c.left), (0, 8), "{protocol}");
        assert_eq!(
            range(|c| c.top),
            (*vertical.start(), *vertical.end()),
            "{protocol}"
        );
        let mirrored = crops.iter().filter(|crop| crop.flip == 1).count();
        // Four standard deviations of a fair coin.
        assert!(mirrored.abs_diff(1000) < 90, "{mirrored}");
    }
}

#[test]
fn the_stem_and_the_schedule_are_the_protocols() {
    let device = Device::cpu();
    let dataset = data::load(DataKind::Shapes, None, 0).expect("shapes are drawn");
    for (protocol, stem, rates) in [
        (Protocol::Sound, Stem::Cifar { padding: 1 }, [0.01, 0.01]),
        (Protocol::Paper, Stem::ImageNet, [0.01, 0.001]),
    ] {
        let own = settings(protocol, 4);
        assert_eq!(own.encoder.stem, stem);
        let mut training = training(&device, own, &dataset.train);
        for (step, rate) in [999, 1000].into_iter().zip(rates) {
            let pending = training.step(step).expect("it is recorded");
            assert!((pending.learning_rate - rate).abs() < 1e-9, "{protocol}");
            let loss = training.finish(pending).expect("it is finite");
            // Four rotations, so that chance is ln 4 = 1.386.
            assert!((loss - 1.386).abs() < 0.7, "{protocol}: {loss}");
        }
    }
}

/// Images whose upper half is bright can be turned right after a few steps, and their accuracy then
/// says so.
#[test]
fn rotations_of_images_with_a_top_are_learned() {
    let device = Device::cpu();
    let images: Vec<u8> = (0..32u8)
        .flat_map(|i| {
            (0..3 * 16 * 16).map(move |k| {
                let row = k / 16 % 16;
                if row < 8 { 200 + i } else { 30 + i }
            })
        })
        .collect();
    let split = Split {
        images: images.into(),
        labels: None,
        files: Vec::new(),
        height: 16,
        width: 16,
    };
    let own = RotNetSettings {
        augmentation: PaddedCropAugmentation {
            padding: 2,
            vertical: 2,
            flip: 0.5,
        },
        ..settings(Protocol::Sound, 16)
    };
    let mut training = training(&device, own, &split);
    for step in 0..40 {
        let pending = training.step(step).expect("it is recorded");
        training.finish(pending).expect("it is finite");
    }
    let accuracy =
        rotation_accuracy(&device, &training.module, &split, &mut Vec::new()).expect("measured");
    assert!(accuracy > 0.9, "{accuracy}");
}
