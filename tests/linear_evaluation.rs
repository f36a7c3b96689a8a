//! Linear evaluation and supervised training: what stays frozen, what moves, and under which
//! protocol.

use parallax::augment::PaddedCropAugmentation;
use parallax::autograd::{Mode, Tape};
use parallax::data::{self, DataKind, Dataset};
use parallax::evaluate::features::{features, set_running_statistics};
use parallax::evaluate::linear::{LinearSettings, train_head, with_frozen};
use parallax::evaluate::partial::Partial;
use parallax::nn::{Arch, Linear, Module, Normalization, Parameter, ResNet, ResNetConfig, Stem};
use parallax::objectives::classifier::{Classifier, ClassifierSettings};
use parallax::optim::{Optimization, OptimizerOptions, Schedule};
use parallax::train::Trainer;
use parallax::{Device, Error, Tensor};

fn shapes() -> Dataset {
    data::load(DataKind::Shapes, None, 0).expect("shapes are drawn")
}

fn encoder(device: &Device) -> ResNet {
    let config = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    };
    ResNet::new(&config, 5, device).expect("it fits")
}

fn settings(augmentation: Option<PaddedCropAugmentation>) -> LinearSettings {
    LinearSettings {
        epochs: 20,
        batch_size: 50,
        optimization: Optimization {
            optimizer: OptimizerOptions::adam(0.0),
            learning_rate: 1e-2,
            schedule: Schedule::constant(),
        },
        augmentation,
        resolution: 32,
        seed: 2,
    }
}

fn bits(parameters: &[&Parameter]) -> Vec<Vec<u32>> {
    let of = |p: &&Parameter| {
        let values = p.value.to_vec::<f32>().expect("floats");
        values.iter().map(|x| x.to_bits()).collect()
    };
    parameters.iter().map(of).collect()
}

#[test]
fn an_evaluation_that_unfreezes_batch_norm_fails_loudly() {
    let device = Device::cpu();
    let dataset = shapes();
    let encoder = encoder(&device);
    let members: Vec<u32> = (0..100).collect();
    let train = |settings: &LinearSettings| {
        train_head(
            &device,
            &encoder,
            &dataset.train,
            &members,
            10,
            settings,
            &mut Partial::new(),
        )
    };
    with_frozen(&encoder, || train(&settings(None))).expect("nothing changes");
    let crops = Some(PaddedCropAugmentation::default());
    with_frozen(&encoder, || train(&settings(crops))).expect("nothing changes");
    let touched = with_frozen(&encoder, || {
        set_running_statistics(&device, &encoder, &dataset.train)
    });
    match touched {
        Err(Error::Guard(message)) => assert!(message.contains("SHA-256"), "{message}"),
        other => panic!("a changed running statistic went unseen: {other:?}"),
    }
}

#[test]
fn cached_features_are_those_of_each_step() {
    let device = Device::cpu();
    let dataset = shapes();
    let encoder = encoder(&device);
    set_running_statistics(&device, &encoder, &dataset.train).expect("images fit");
    let members: Vec<u32> = (0..200).map(|i| 3 * i).collect();
    let head = |augmentation| {
        let settings = settings(augmentation);
        let (head, loss) = train_head(
            &device,
            &encoder,
            &dataset.train,
            &members,
            10,
            &settings,
            &mut Partial::new(),
        )
        .expect("fits");
        (bits(&head.parameters()), loss)
    };
    let unmoved = PaddedCropAugmentation {
        padding: 0,
        vertical: 0,
        flip: 0.0,
    };
    let (cached, augmented) = (head(None), head(Some(unmoved)));
    assert!(
        (cached.1 - augmented.1).abs() < 1e-4,
        "{} and {}",
        cached.1,
        augmented.1
    );
    assert_eq!(cached, head(None), "the same bits twice");
    assert_ne!(cached.0, head(Some(PaddedCropAugmentation::default())).0);
    // Ten classes by an untrained encoder: better than chance, and the loss says so.
    assert!(cached.1 < 10f64.ln(), "{}", cached.1);
}

#[test]
fn images_are_resized_to_the_resolution() {
    let device = Device::cpu();
    let dataset = shapes();
    let encoder = encoder(&device);
    let few = dataset.test.subset(&[0, 1, 2]);
    let own = features(&device, &encoder, &few, 32).expect("they fit");
    let larger = features(&device, &encoder, &few, 48).expect("they fit");
    assert_eq!(
        (own.len(), larger.len()),
        (3 * encoder.feature_width(), own.len())
    );
    assert_ne!(own, larger);
    let both = settings(Some(PaddedCropAugmentation::default()));
    let both = LinearSettings {
        resolution: 48,
        ..both
    };
    let members = [0, 1, 2];
    let refused = train_head(
        &device,
        &encoder,
        &dataset.train,
        &members,
        10,
        &both,
        &mut Partial::new(),
    );
    assert!(matches!(refused, Err(Error::Usage(_))));
}

fn classifier(
    device: &Device,
    dataset: &Dataset,
    frozen: bool,
) -> Trainer<(ResNet, Linear), Classifier> {
    let settings = ClassifierSettings {
        micro_batch: None,
        batch_size: 8,
        optimization: Optimization {
            optimizer: OptimizerOptions::nesterov(0.0),
            learning_rate: 0.0125,
            schedule: Schedule::constant(),
        },
        augmentation: PaddedCropAugmentation::default(),
        normalization: Normalization::default(),
        frozen_after_first_epoch: frozen,
        seed: 4,
    };
    let (optimization, seed) = (settings.optimization, settings.seed);
    let encoder = encoder(device);
    let head = Linear::new("fc", encoder.feature_width(), 10, seed, device).expect("it fits");
    let members = (0..20).collect();
    let objective = Classifier::new(settings, encoder.shape(), &dataset.train, members, device)
        .expect("the settings fit");
    assert_eq!(objective.steps_per_epoch(), 2);
    Trainer::new((encoder, head), optimization, objective).expect("memory suffices")
}

/// The paper's code leaves batch norm in evaluation mode after the first epoch's validation.
#[test]
fn running_statistics_follow_each_step_or_those_of_the_first_epoch() {
    let device = Device::cpu();
    let dataset = shapes();
    for frozen in [false, true] {
        let mut training = classifier(&device, &dataset, frozen);
        let mut before = bits(&training.module.buffers());
        let mut parameters = bits(&training.module.parameters());
        for step in 0..4 {
            let pending = training.step(step).expect("it is recorded");
            training.finish(pending).expect("it is finite");
            let after = bits(&training.module.buffers());
            assert_eq!(
                before != after,
                !frozen || step < 2,
                "step {step}, {frozen}"
            );
            before = after;
            let moved = bits(&training.module.parameters());
            let unmoved = parameters
                .iter()
                .zip(&moved)
                .filter(|(a, b)| a == b)
                .count();
            assert_eq!(unmoved, 0, "every parameter moves in every step");
            parameters = moved;
        }
    }
}

#[test]
fn a_classifier_learns_its_images_by_heart() {
    let device = Device::cpu();
    let dataset = shapes();
    let mut training = classifier(&device, &dataset, false);
    let mut losses = Vec::new();
    for step in 0..160 {
        let pending = training.step(step).expect("it is recorded");
        losses.push(training.finish(pending).expect("it is finite"));
    }
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (first, last) = (mean(&losses[..8]), mean(&losses[152..]));
    assert!(last < 0.6 * first, "{first} to {last}");
}

#[test]
fn a_head_sees_evaluation_mode_features() {
    let device = Device::cpu();
    let dataset = shapes();
    let encoder = encoder(&device);
    let few = dataset.test.subset(&[0, 1]);
    let one = dataset.test.subset(&[0]);
    let (both, alone) = (
        features(&device, &encoder, &few, 32).expect("they fit"),
        features(&device, &encoder, &one, 32).expect("they fit"),
    );
    // In training mode an image's features would depend on its batch.
    assert_eq!(both[..encoder.feature_width()], alone);
    let tape = Tape::inference(&device);
    let x = Tensor::from_slice(&[0.5f32; 3 * 32 * 32], &[1, 3, 32, 32], &device).expect("fits");
    let y = |mode| {
        let y = encoder.forward(&tape.in_mode(mode).constant(&x));
        let y = y.expect("fits");
        y.tensor().to_vec::<f32>().expect("floats")
    };
    assert_ne!(y(Mode::Training), y(Mode::Evaluation));
}

#[test]
fn an_evaluation_normalises_as_its_encoder_says() {
    let device = Device::cpu();
    let few = shapes().test.subset(&[0, 1, 2, 3]);
    let of = |words: &str| {
        let normalization = words.parse::<Normalization>().expect("a normalisation");
        let encoder = encoder(&device).with_normalization(normalization);
        set_running_statistics(&device, &encoder, &few).expect("images fit");
        features(&device, &encoder, &few, 32).expect("they fit")
    };
    let encoder = encoder(&device);
    set_running_statistics(&device, &encoder, &few).expect("images fit");
    let default = features(&device, &encoder, &few, 32).expect("they fit");
    assert_eq!(default, of("cifar10"));
    assert_eq!(default, of("0.4914,0.4822,0.4465/0.2023,0.1994,0.2010"));
    let none = of("none");
    assert_eq!(none, of("0/1"));
    assert_ne!(default, none);
    assert_ne!(default, of("imagenet"));
}
