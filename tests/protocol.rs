//! The two protocols of SimCLR's pretraining, compared choice by choice. `command_line.rs` tests
//! that the paper's protocol requires `--init`.

use parallax::augment::{SimClrAugmentation, ViewKey};
use parallax::autograd::Tape;
use parallax::data::{self, DataKind, Dataset};
use parallax::nn::{Arch, Module, Parameter, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::ops::{Concat, NtXent};
use parallax::runs::result::chance_loss;
use parallax::train::Trainer;
use parallax::{Device, Error, Tensor};

const BATCH: usize = 8;

fn shapes() -> Dataset {
    data::load(DataKind::Shapes, None, 0).expect("shapes are drawn")
}

/// A narrow ResNet-18 under `protocol`.
fn settings(protocol: Protocol, weight_decay: f32) -> SimClrSettings {
    let encoder = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    };
    SimClrSettings::of_protocol(protocol, encoder, 32, BATCH, weight_decay, 5)
}

fn objective(device: &Device, settings: SimClrSettings) -> SimClr {
    SimClr::new(settings, shapes().pretraining(), device).expect("the settings fit")
}

fn training(device: &Device, settings: SimClrSettings) -> Trainer<SimClrNetwork, SimClr> {
    let network = simclr::network(&settings, device).expect("memory suffices");
    let optimization = settings.optimization;
    Trainer::new(network, optimization, objective(device, settings)).expect("memory suffices")
}

fn bits(parameters: &[&Parameter]) -> Vec<Vec<u32>> {
    parameters
        .iter()
        .map(|p| {
            let values = p.value.to_vec::<f32>().expect("it is a float tensor");
            values.iter().map(|x| x.to_bits()).collect()
        })
        .collect()
}

fn take_step(training: &mut Trainer<SimClrNetwork, SimClr>, step: u64) -> f32 {
    let pending = training.step(step).expect("it is recorded");
    training.finish(pending).expect("it is finite")
}

/// The loss of step 0 from its parts, with the views in one pass or each in a pass of its own.
fn loss_from_parts(device: &Device, settings: SimClrSettings, one_pass: bool) -> f32 {
    let (encoder, projector) = simclr::network(&settings, device).expect("memory suffices");
    let [first, second] = &objective(device, settings)
        .views(0)
        .expect("views are drawn");
    let tape = Tape::new(device);
    let project = |x: &Tensor| {
        let features = encoder.forward(&tape.constant(x)).expect("images fit");
        projector.forward(&features).expect("features fit")
    };
    let z = if one_pass {
        let (a, b) = (first, second);
        project(&device.run(Concat { a, b }).expect("views are alike"))
    } else {
        let (first, second) = (project(first), project(second));
        first.concat(&second).expect("they are alike")
    };
    let z = z.l2_normalize(1e-12).expect("a matrix");
    let loss = z.nt_xent(0.5).expect("an even number of rows");
    loss.tensor().to_scalar().expect("one number")
}

#[test]
fn equation_1_masks_the_self_pair_alone() {
    // Equal rows: every similarity is the same, so that the loss counts the denominator's
    // terms, 2N - 1.
    let device = Device::cpu();
    for (n, chance) in [
        (32, 4.14),
        (64, 4.84),
        (128, 5.54),
        (256, 6.24),
        (512, 6.93),
    ] {
        let mut rows = vec![0.0; 2 * n * 4];
        rows.iter_mut().step_by(4).for_each(|x| *x = 1.0);
        let z = Tensor::from_slice(&rows, &[2 * n, 4], &device).expect("it fits");
        let temperature = 0.5;
        let forward = device.run(NtXent { z: &z, temperature });
        let loss = forward.expect("an even number of rows").loss;
        let loss = f64::from(loss.to_scalar::<f32>().expect("one number"));
        assert!((loss - chance_loss(n)).abs() < 1e-5, "{n}: {loss}");
        assert!((loss - chance).abs() < 0.006, "{n}: {loss}");
    }
}

#[test]
fn the_first_loss_is_near_chance() {
    let device = Device::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let loss = f64::from(take_step(
            &mut training(&device, settings(protocol, 0.0)),
            0,
        ));
        assert!(
            (loss - chance_loss(BATCH)).abs() < 0.5,
            "{protocol}: {loss}"
        );
    }
}

#[test]
fn the_stem_is_padded_or_not() {
    for (protocol, padding) in [(Protocol::Sound, 1), (Protocol::Paper, 0)] {
        let stem = settings(protocol, 0.0).encoder.stem;
        assert!(
            matches!(stem, Stem::Cifar { padding: p } if p == padding),
            "{protocol}: {stem:?}"
        );
    }
    // The first plane is 32 x 32 or 30 x 30, which the first batch norm's statistics show.
    let device = Device::cpu();
    let mut means = Vec::new();
    for padding in [1, 0] {
        let mut own = settings(Protocol::Sound, 0.0);
        own.encoder.stem = Stem::Cifar { padding };
        let mut training = training(&device, own);
        take_step(&mut training, 0);
        means.push(bits(&training.module.buffers()[..1]));
    }
    assert_ne!(means[0], means[1]);
}

#[test]
fn the_projector_is_as_wide_as_the_features_and_has_no_batch_norm() {
    let device = Device::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let training = training(&device, settings(protocol, 0.0));
        let shapes: Vec<_> = training
            .module
            .1
            .parameters()
            .iter()
            .map(|p| p.value.shape().to_vec())
            .collect();
        let width = training.module.0.feature_width();
        let expected = [vec![width, width], vec![width], vec![128, width], vec![128]];
        assert_eq!(shapes, expected, "{protocol}");
    }
}

#[test]
fn views_share_one_pass_or_have_one_each() {
    let device = Device::cpu();
    for (protocol, one_pass) in [(Protocol::Sound, true), (Protocol::Paper, false)] {
        let own = || settings(protocol, 0.0);
        let loss = take_step(&mut training(&device, own()), 0);
        let expected = loss_from_parts(&device, own(), one_pass);
        let other = loss_from_parts(&device, own(), !one_pass);
        assert_eq!(loss.to_bits(), expected.to_bits(), "{protocol}");
        assert!(
            (loss - other).abs() > 1e-5,
            "{protocol}: both ways give {loss}"
        );
    }
}

#[test]
fn a_draw_per_image_or_one_for_the_batch() {
    let samples: Vec<u32> = (0..64).collect();
    let distinct = |augmentation: SimClrAugmentation, step: u32| {
        let key = ViewKey {
            seed: 1,
            step,
            view: 0,
        };
        let views = augmentation.draw(key, &samples, 32, 32);
        assert!(
            views
                .iter()
                .enumerate()
                .all(|(i, view)| view.crop.image == i as u32)
        );
        let mut seen: Vec<_> = Vec::new();
        for mut view in views {
            view.crop.image = 0;
            if !seen.contains(&view) {
                seen.push(view);
            }
        }
        seen
    };
    assert!(distinct(SimClrAugmentation::sound(32), 0).len() > 60);
    let first = distinct(SimClrAugmentation::paper(32), 0);
    let second = distinct(SimClrAugmentation::paper(32), 1);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
}

#[test]
fn colour_jitter_is_half_or_full() {
    for (augmentation, strength) in [
        (SimClrAugmentation::sound(32), 0.5),
        (SimClrAugmentation::paper(32), 1.0),
    ] {
        let jitter = augmentation.jitter;
        for value in [jitter.brightness, jitter.contrast, jitter.saturation] {
            assert_eq!(value, 0.8 * strength);
        }
        assert_eq!(jitter.hue, 0.2 * strength);
        assert_eq!(jitter.probability, 0.8);
        assert_eq!((augmentation.grayscale, augmentation.flip), (0.2, 0.5));
        assert_eq!(augmentation.scale, [0.08, 1.0]);
        assert_eq!(augmentation.ratio, [3.0 / 4.0, 4.0 / 3.0]);
    }
}

#[test]
fn views_are_normalised_or_not() {
    let device = Device::cpu();
    let range = |protocol| {
        let [first, _] = objective(&device, settings(protocol, 0.0))
            .views(0)
            .expect("drawn");
        let values = first.to_vec::<f32>().expect("floats");
        let fold = |f: fn(f32, f32) -> f32, start| values.iter().copied().fold(start, f);
        [
            fold(f32::min, f32::INFINITY),
            fold(f32::max, f32::NEG_INFINITY),
        ]
    };
    let [low, high] = range(Protocol::Sound);
    assert!(low < -0.5 && high > 1.0, "{low} to {high}");
    let [low, high] = range(Protocol::Paper);
    assert!(low >= 0.0 && high <= 1.0 && high > 0.5, "{low} to {high}");
}

#[test]
fn the_learning_rate_is_constant_or_falls_each_thousand_steps() {
    let device = Device::cpu();
    for (protocol, rates) in [
        (Protocol::Sound, [1e-3, 1e-3, 1e-3, 1e-3]),
        (Protocol::Paper, [1e-3, 1e-3, 1e-4, 1e-5]),
    ] {
        let mut training = training(&device, settings(protocol, 0.0));
        for (step, rate) in [0, 999, 1000, 2000].into_iter().zip(rates) {
            let taken = training.step(step).expect("it is recorded").learning_rate;
            assert!(
                (taken - rate).abs() < 1e-9,
                "{protocol}, step {step}: {taken}"
            );
        }
    }
}

#[test]
fn weight_decay_is_applied_or_not() {
    let device = Device::cpu();
    let after = |protocol, weight_decay| {
        let mut training = training(&device, settings(protocol, weight_decay));
        take_step(&mut training, 0);
        bits(&training.state())
    };
    assert_ne!(after(Protocol::Sound, 0.0), after(Protocol::Sound, 1.0));
    assert_eq!(after(Protocol::Paper, 0.0), after(Protocol::Paper, 1.0));
}

#[test]
fn pretraining_moves_the_running_statistics() {
    let device = Device::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let mut training = training(&device, settings(protocol, 0.0));
        let before = bits(&training.module.buffers());
        take_step(&mut training, 0);
        let after = bits(&training.module.buffers());
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!(moved, before.len(), "{protocol}");
    }
}

#[test]
fn a_step_that_is_not_finite_leaves_the_state_of_the_step_before() {
    let device = Device::cpu();
    let mut own = settings(Protocol::Sound, 0.0);
    // Similarities over so small a temperature overflow.
    own.temperature = 1e-40;
    let mut training = training(&device, own);
    let before = bits(&training.state());
    let pending: Vec<_> = (0..3)
        .map(|step| training.step(step).expect("it is recorded"))
        .collect();
    let mut told = Vec::new();
    for step in pending {
        match training.finish(step) {
            Err(Error::NonFinite(message)) => told.push(message),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        told[0].starts_with("step 1:") && told[0].contains("nt_xent"),
        "{}",
        told[0]
    );
    assert_eq!(bits(&training.state()), before);
}
