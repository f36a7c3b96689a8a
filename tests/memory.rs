//! The memory of a training step is estimated before the step, within a sixth, and a step that does
//! not fit is refused.

use parallax::augment::ImageStore;
use parallax::autograd::PassOptions;
use parallax::data::{self, DataKind};
use parallax::nn::{Arch, Linear, Module, Projector, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::rotnet::{self, RotNet, RotNetSettings};
use parallax::objectives::simclr::{self, SimClr, SimClrSettings};
use parallax::optim::OptimizerOptions;
use parallax::runs::memory::StepSize;
use parallax::train::{Objective, Trainer};
use parallax::{DType, Device, Result};

fn simclr(encoder: ResNetConfig, batch_size: usize, micro_batch: Option<usize>) -> SimClrSettings {
    SimClrSettings {
        micro_batch,
        ..SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0)
    }
}

fn encoder(arch: Arch, width: f64) -> ResNetConfig {
    ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width,
    }
}

/// The peak memory of `device` after two steps of a training on it.
fn peak<M: Module, O: Objective<M>>(device: &Device, mut trainer: Trainer<M, O>) -> f64 {
    for step in 0..2 {
        let pending = trainer.step(step).unwrap();
        trainer.finish(pending).unwrap();
    }
    device.memory().peak as f64
}

fn width_of(encoder: ResNetConfig) -> usize {
    encoder.shape().unwrap().feature_width
}

fn near(name: &str, estimated: f64, held: f64) {
    let ratio = estimated / held;
    eprintln!(
        "{name}: estimated {:.0} MiB, held {:.0} MiB",
        estimated / 1048576.0,
        held / 1048576.0
    );
    assert!((5.0 / 6.0..7.0 / 6.0).contains(&ratio), "{name}: {ratio}");
}

#[test]
fn the_estimate_is_the_memory_of_a_step() {
    let dataset = data::load(DataKind::Shapes, None, 0).unwrap();
    for (arch, width, batch_size, micro_batch, activations) in [
        (Arch::ResNet18, 0.5, 48, None, DType::F32),
        (Arch::ResNet50, 0.25, 40, None, DType::F32),
        (Arch::ResNet50, 0.5, 12, None, DType::F32),
        (Arch::ResNet18, 0.5, 48, Some(16), DType::F32),
        (Arch::ResNet18, 0.5, 48, Some(20), DType::F32),
        (Arch::ResNet50, 0.5, 24, Some(4), DType::F32),
        (Arch::ResNet18, 0.5, 48, None, DType::F16),
        (Arch::ResNet50, 0.5, 24, Some(4), DType::F16),
    ] {
        let encoder = encoder(arch, width);
        let settings = simclr(encoder, batch_size, micro_batch);
        let optimization = settings.optimization;
        let size = StepSize {
            encoder,
            side: 32,
            views_per_image: 2,
            batch_size,
            micro_batch,
            recompute: false,
            activations,
            optimizer: optimization.optimizer,
            head_parameters: Projector::parameter_count(width_of(encoder)),
            image_bytes: ImageStore::bytes_held(dataset.pretraining(), batch_size),
        };
        let memory = size.measure(&|| Ok(Device::cpu())).unwrap();
        let device = Device::cpu();
        let network = simclr::network(&settings, &device).unwrap();
        let objective = SimClr::new(settings, dataset.pretraining(), &device).unwrap();
        let options = PassOptions {
            activations,
            ..PassOptions::default()
        };
        let trainer = Trainer::new(network, optimization, objective).unwrap();
        let mut trainer = trainer.with_options(options).unwrap();
        if let Some(images) = micro_batch {
            trainer = trainer.with_micro_batch(images);
        }
        near(
            &format!("SimCLR {arch} {width}, {batch_size} in {micro_batch:?}, {activations}"),
            size.needed(memory).unwrap(),
            peak(&device, trainer),
        );
    }
    let encoder = encoder(Arch::ResNet18, 0.25);
    let settings = RotNetSettings::of_protocol(Protocol::Sound, encoder, 32, 5e-4, 0);
    let optimization = settings.optimization;
    let size = StepSize {
        encoder,
        side: 32,
        views_per_image: 4,
        batch_size: 32,
        micro_batch: None,
        recompute: false,
        activations: DType::F32,
        optimizer: optimization.optimizer,
        head_parameters: Linear::parameter_count(width_of(encoder), 4),
        image_bytes: ImageStore::bytes_held(dataset.pretraining(), 32),
    };
    let memory = size.measure(&|| Ok(Device::cpu())).unwrap();
    let device = Device::cpu();
    let network = rotnet::network(&settings, &device).unwrap();
    let objective = RotNet::new(settings, dataset.pretraining(), &device).unwrap();
    let trainer = Trainer::new(network, optimization, objective).unwrap();
    let held = peak(&device, trainer);
    near("RotNet", size.needed(memory).unwrap(), held);
}

#[test]
fn a_step_that_does_not_fit_is_refused_with_the_largest_that_does() {
    let open: &dyn Fn() -> Result<Device> = &|| Ok(Device::cpu());
    let cut = |batch_size, micro_batch| StepSize {
        encoder: encoder(Arch::ResNet18, 0.25),
        side: 32,
        views_per_image: 2,
        batch_size,
        micro_batch,
        recompute: false,
        activations: DType::F32,
        optimizer: OptimizerOptions::adam(0.0),
        head_parameters: 0,
        image_bytes: 0,
    };
    let size = |batch_size| cut(batch_size, None);
    let free = 256.0 * 1048576.0;
    size(8).check_against(free, open).unwrap();
    let refused = size(4096)
        .check_against(free, open)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("--batch-size 4096 needs about"),
        "{refused}"
    );
    assert!(refused.contains("256 MiB are free"), "{refused}");
    // The number after the last mention of a flag.
    let named = |message: &str, flag: &str| -> Option<usize> {
        let words: Vec<&str> = message.split_whitespace().collect();
        let at = words.iter().rposition(|&word| word == flag)?;
        words[at + 1].trim_end_matches(',').parse().ok()
    };
    let largest = named(&refused, "--batch-size").unwrap();
    assert!((8..4096).contains(&largest), "{refused}");
    size(largest).check_against(free, open).unwrap();
    assert!(size(largest + 2).check_against(free, open).is_err());
    let chunk = named(&refused, "--micro-batch").expect("chunks of this batch fit");
    assert!((1..4096).contains(&chunk), "{refused}");
    cut(4096, Some(chunk)).check_against(free, open).unwrap();
    let larger = cut(4096, Some(chunk + 2)).check_against(free, open);
    let larger = larger.unwrap_err().to_string();
    let both = format!("--batch-size 4096 and --micro-batch {} needs", chunk + 2);
    assert!(larger.contains(&both), "{larger}");
    assert_eq!(named(&larger, "--micro-batch"), Some(chunk), "{larger}");
    let nothing = size(1).check_against(1000.0, open).unwrap_err().to_string();
    assert!(nothing.contains("use a smaller --width"), "{nothing}");
}
