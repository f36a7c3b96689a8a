//! Layers, networks, weight files and optimisers, beside the numbers that `golden_pytorch.rs`
//! compares.

use std::collections::BTreeMap;
use std::path::Path;

use parallax::autograd::{PassOptions, Tape};
use parallax::nn::weights;
use parallax::nn::{
    Arch, BatchNorm, Linear, Module, Parameter, Projector, ResNet, ResNetConfig, Stem,
};
use parallax::optim::{Optimizer, OptimizerOptions};
use parallax::{Device, Result, Tensor};

fn config(arch: Arch, stem: Stem) -> ResNetConfig {
    ResNetConfig {
        arch,
        stem,
        width: 0.0625,
    }
}

const CIFAR: Stem = Stem::Cifar { padding: 1 };

fn values(parameters: &[&Parameter]) -> Vec<Vec<f32>> {
    let values = parameters.iter().map(|p| p.value.to_vec().unwrap());
    values.collect()
}

#[test]
fn names_are_those_of_torchvision() -> Result<()> {
    let device = Device::cpu();
    let resnet = ResNet::new(&config(Arch::ResNet50, Stem::ImageNet), 1, &device)?;
    let names: Vec<&str> = resnet
        .parameters()
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(
        names[..4],
        [
            "conv1.weight",
            "bn1.weight",
            "bn1.bias",
            "layer1.0.conv1.weight"
        ]
    );
    for name in [
        "layer1.0.bn3.bias",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
        "layer3.5.conv3.weight",
        "layer4.2.bn3.weight",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    // 53 convolutions, each with a batch norm.
    assert_eq!(names.len(), 53 * 3);
    let buffers: Vec<&str> = resnet.buffers().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(buffers[..2], ["bn1.running_mean", "bn1.running_var"]);
    assert!(buffers.contains(&"layer2.0.downsample.1.running_var"));
    assert_eq!(buffers.len(), 53 * 2);

    let projector = Projector::new(12, 1, &device)?;
    let names: Vec<&str> = projector
        .parameters()
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "projector.0.weight",
            "projector.0.bias",
            "projector.2.weight",
            "projector.2.bias"
        ]
    );
    let head = Linear::new("fc", 12, 10, 1, &device)?;
    assert_eq!(head.parameters()[0].name, "fc.weight");
    Ok(())
}

#[test]
fn the_network_holds_as_many_numbers_as_its_shape_says() -> Result<()> {
    let device = Device::cpu();
    for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
        for stem in [CIFAR, Stem::ImageNet] {
            let resnet = ResNet::new(&config(arch, stem), 1, &device)?;
            let held: usize = resnet.parameters().iter().map(|p| p.value.len()).sum();
            assert_eq!(held, resnet.shape().parameter_count());
        }
    }
    let projector = Projector::new(12, 1, &device)?;
    let held: usize = projector.parameters().iter().map(|p| p.value.len()).sum();
    assert_eq!(held, Projector::parameter_count(12));
    let head = Linear::new("fc", 12, 10, 1, &device)?;
    let held: usize = head.parameters().iter().map(|p| p.value.len()).sum();
    assert_eq!(held, Linear::parameter_count(12, 10));
    Ok(())
}

#[test]
fn every_network_takes_images_to_features() -> Result<()> {
    let device = Device::cpu();
    for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
        for (stem, size) in [
            (CIFAR, 16),
            (Stem::Cifar { padding: 0 }, 17),
            (Stem::ImageNet, 64),
        ] {
            let resnet = ResNet::new(&config(arch, stem), 1, &device)?;
            let images = vec![0.5f32; 2 * 3 * size * size];
            let images = Tensor::from_slice(&images, &[2, 3, size, size], &device)?;
            let tape = Tape::inference(&device);
            let features = resnet.forward(&tape.constant(&images))?;
            assert_eq!(features.shape(), [2, resnet.feature_width()]);
            let features = features.tensor().to_vec::<f32>()?;
            assert!(features.iter().all(|f: &f32| f.is_finite() && *f >= 0.0));
            assert!(features.iter().any(|f| *f > 0.0));
        }
    }
    Ok(())
}

#[test]
fn the_seed_decides_the_initial_values() -> Result<()> {
    let device = Device::cpu();
    let network = |seed| ResNet::new(&config(Arch::ResNet18, CIFAR), seed, &device);
    let (one, same, other) = (network(1)?, network(1)?, network(2)?);
    let of = |resnet: &ResNet| values(&resnet.parameters());
    assert_eq!(of(&one), of(&same));
    assert_ne!(of(&one), of(&other));
    Ok(())
}

#[test]
fn running_statistics_wait_for_their_updates_and_obey_the_gate() -> Result<()> {
    let device = Device::cpu();
    let norm = BatchNorm::new("bn", 1, &device)?;
    let running = || {
        let [mean, variance] = values(&norm.buffers()).try_into().unwrap();
        (mean[0], variance[0])
    };
    let pass = |tape: &Tape, numbers: [f32; 4]| -> Result<()> {
        let x = Tensor::from_slice(&numbers, &[2, 1, 1, 2], &device)?;
        norm.forward(&tape.constant(&x)).map(drop)
    };
    let training = || Tape::forward_only(&device, PassOptions::default());
    let apply = |tape: &Tape, gate: Option<&Tensor>| -> Result<()> {
        let mut updates = tape.take_buffer_updates().into_iter();
        updates.try_for_each(|update| update.apply(&device, gate))
    };
    let tape = training();
    pass(&tape, [1.0, 2.0, 3.0, 4.0])?;
    assert_eq!(running(), (0.0, 1.0));

    let set = Tensor::from_slice(&[1u32], &[1], &device)?;
    apply(&tape, Some(&set))?;
    assert_eq!(running(), (0.0, 1.0));
    apply(&tape, None)?;
    assert_eq!(
        running(),
        (0.0, 1.0),
        "the updates of a gated step are over, not postponed"
    );

    pass(&tape, [9.0; 4])?;
    drop(tape.take_buffer_updates());
    apply(&tape, None)?;
    assert_eq!(running(), (0.0, 1.0));

    // A pass in evaluation mode requests nothing.
    let evaluation = Tape::inference(&device);
    pass(&evaluation, [9.0; 4])?;
    assert!(evaluation.take_buffer_updates().is_empty());

    // Two passes, applied in order: means 2.5 and 10, unbiased variances 5 / 3 and 0.
    let tape = training();
    pass(&tape, [1.0, 2.0, 3.0, 4.0])?;
    pass(&tape, [10.0; 4])?;
    let clear = Tensor::from_slice(&[0u32], &[1], &device)?;
    apply(&tape, Some(&clear))?;
    let (mean, variance) = running();
    assert!((mean - (0.9 * 0.25 + 1.0)).abs() < 1e-6, "{mean}");
    let expected = 0.9 * (0.9 + 0.1 * 5.0 / 3.0);
    assert!((variance - expected).abs() < 1e-6, "{variance}");
    Ok(())
}

#[test]
fn running_statistics_can_be_the_plain_mean_over_batches() -> Result<()> {
    let device = Device::cpu();
    let resnet = ResNet::new(&config(Arch::ResNet18, CIFAR), 1, &device)?;
    // The mean of the stem's convolution is linear in the brightness of the images.
    let mean_after = |levels: &[f32]| -> Result<Vec<f32>> {
        for (before, &level) in levels.iter().enumerate() {
            let images = vec![level; 2 * 3 * 64];
            let images = Tensor::from_slice(&images, &[2, 3, 8, 8], &device)?;
            let options = PassOptions {
                momentum: 1.0 / (before as f32 + 1.0),
                ..PassOptions::default()
            };
            let tape = Tape::forward_only(&device, options);
            resnet.forward(&tape.constant(&images))?;
            for update in tape.take_buffer_updates() {
                update.apply(&device, None)?;
            }
        }
        resnet.buffers()[0].value.to_vec()
    };
    let alone = mean_after(&[1.0])?;
    assert!(alone.iter().any(|m| m.abs() > 0.01));
    let three = mean_after(&[1.0, 2.0, 6.0])?;
    for (alone, three) in alone.iter().zip(&three) {
        assert!((three - 3.0 * alone).abs() < 1e-5, "{three} and {alone}");
    }
    Ok(())
}

#[test]
fn weights_are_the_same_after_saving_and_loading() -> Result<()> {
    let device = Device::cpu();
    let path = Path::new("encoder.safetensors");
    let one = ResNet::new(&config(Arch::ResNet18, CIFAR), 1, &device)?;
    let two = ResNet::new(&config(Arch::ResNet18, CIFAR), 2, &device)?;
    let (ours, theirs) = (one.state(), two.state());
    assert_eq!(ours.len(), one.parameters().len() + one.buffers().len());
    let metadata = BTreeMap::from([
        ("arch".to_string(), "resnet18".to_string()),
        ("seed".to_string(), "1".to_string()),
    ]);
    let bytes = weights::save(&ours, &metadata)?;
    assert_eq!(bytes, weights::save(&ours, &metadata)?);
    assert_eq!(weights::metadata(&bytes, path)?, metadata);

    assert_ne!(values(&ours), values(&theirs));
    weights::load(&bytes, path, &theirs)?;
    assert_eq!(values(&ours), values(&theirs));
    Ok(())
}

fn parameter(device: &Device, name: &str, shape: &[usize], value: f32) -> Parameter {
    let values = vec![value; shape.iter().product()];
    Parameter::new(name, &values, shape, device).unwrap()
}

#[test]
fn a_file_that_does_not_fit_is_refused_whole() -> Result<()> {
    let device = Device::cpu();
    let path = Path::new("weights.safetensors");
    let stored = [
        parameter(&device, "same.weight", &[2], 1.0),
        parameter(&device, "shape.weight", &[3], 1.0),
        parameter(&device, "extra.weight", &[1], 1.0),
        parameter(&device, "bn1.num_batches_tracked", &[1], 1.0),
    ];
    let bytes = weights::save(&stored.iter().collect::<Vec<_>>(), &BTreeMap::new())?;
    let wanted = [
        parameter(&device, "same.weight", &[2], 0.0),
        parameter(&device, "shape.weight", &[2], 0.0),
        parameter(&device, "absent.weight", &[2], 0.0),
    ];
    let wanted: Vec<&Parameter> = wanted.iter().collect();
    let error = weights::load(&bytes, path, &wanted).unwrap_err();
    let message = error.to_string();
    for part in [
        "weights.safetensors",
        "1 of another shape (shape.weight has shape [3], expected [2])",
        "1 missing (absent.weight)",
        "1 unexpected (extra.weight)",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("num_batches_tracked"), "{message}");
    assert!(!message.contains("same.weight"), "{message}");
    assert_eq!(values(&wanted[..1]), [[0.0; 2]], "nothing was changed");

    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for (end, expected) in [
        (1, "1 bytes found, at least 8 expected".to_string()),
        (7, "7 bytes found, at least 8 expected".to_string()),
        (8, format!("8 bytes found, at least {header} expected")),
        (20, format!("20 bytes found, at least {header} expected")),
        (
            header,
            format!("{header} bytes found, {} expected", bytes.len()),
        ),
        (
            bytes.len() - 1,
            format!("{} bytes found, {} expected", bytes.len() - 1, bytes.len()),
        ),
    ] {
        let message = weights::load(&bytes[..end], path, &wanted)
            .unwrap_err()
            .to_string();
        let expected = format!("the file ends early: {expected}");
        assert!(message.contains(&expected), "{end}: {message}");
    }
    let longer = [&bytes[..], b"more"].concat();
    for (broken, word) in [
        (&b""[..], "empty"),
        (b"not a file of weights", "not a safetensors file"),
        (&longer, "more than its header describes"),
    ] {
        let message = weights::load(broken, path, &wanted)
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{message}");
    }
    Ok(())
}

/// Both rules.
fn optimisers() -> [OptimizerOptions; 2] {
    [OptimizerOptions::adam(0.0), OptimizerOptions::nesterov(0.0)]
}

#[test]
fn an_optimiser_names_the_parameter_without_gradient_and_changes_nothing() -> Result<()> {
    let device = Device::cpu();
    let used = parameter(&device, "used.weight", &[2], 1.0);
    let idle = parameter(&device, "idle.weight", &[2], 1.0);
    let gradients = Tape::new(&device).leaf(&used.value).sum()?.backward()?;
    for options in optimisers() {
        let mut optimizer = Optimizer::new(&[&used, &idle], options)?;
        let error = optimizer.step(0.1, &gradients, None).unwrap_err();
        assert!(error.to_string().contains("idle.weight"), "{error}");
        assert_eq!(optimizer.steps(), 0);
        assert_eq!(values(&[&used]), [[1.0; 2]]);
        assert!(
            values(&optimizer.state())
                .concat()
                .iter()
                .all(|&x| x == 0.0)
        );
    }
    Ok(())
}

#[test]
fn a_set_gate_leaves_parameters_and_optimiser_state() -> Result<()> {
    let device = Device::cpu();
    let weight = parameter(&device, "weight", &[3], 1.0);
    let gradients = || Tape::new(&device).leaf(&weight.value).sum()?.backward();
    let gate = Tensor::from_slice(&[1u32], &[1], &device)?;
    for (options, tensors) in optimisers().into_iter().zip([2, 1]) {
        weight.value.overwrite(&[1.0f32; 3])?;
        let mut optimizer = Optimizer::new(&[&weight], options)?;
        optimizer.step(0.1, &gradients()?, Some(&gate))?;
        assert_eq!(values(&[&weight]), [[1.0; 3]]);
        assert_eq!(values(&optimizer.state()), vec![vec![0.0; 3]; tensors]);
        optimizer.step(0.1, &gradients()?, None)?;
        assert_ne!(values(&[&weight]), [[1.0; 3]]);
    }
    Ok(())
}

#[test]
fn an_optimiser_resumes_from_its_saved_state() -> Result<()> {
    let device = Device::cpu();
    let path = Path::new("optimizer.safetensors");
    for options in optimisers() {
        let make = || -> Result<_> {
            let weight = parameter(&device, "weight", &[3], 1.0);
            let optimizer = Optimizer::new(&[&weight], options)?;
            Ok((weight, optimizer))
        };
        let step = |weight: &Parameter, optimizer: &mut Optimizer, factor: f32| -> Result<()> {
            let tape = Tape::new(&device);
            let loss = tape.leaf(&weight.value).scale(factor)?.sum()?;
            optimizer.step(0.1, &loss.backward()?, None)
        };
        let (weight, mut optimizer) = make()?;
        step(&weight, &mut optimizer, 2.0)?;
        let mut saved = optimizer.state();
        saved.push(&weight);
        let bytes = weights::save(&saved, &BTreeMap::new())?;
        step(&weight, &mut optimizer, -0.3)?;

        let (other, mut resumed) = make()?;
        let mut loaded = resumed.state();
        loaded.push(&other);
        weights::load(&bytes, path, &loaded)?;
        resumed.resume_at(1);
        step(&other, &mut resumed, -0.3)?;
        assert_eq!(values(&[&weight]), values(&[&other]), "{}", options.name());
    }
    Ok(())
}
