//! What layers, networks, weight files and optimisers promise beside the numbers that `golden_pytorch.rs` compares.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parallax::autograd::{self, Tape};
use parallax::device::cpu::CpuDevice;
use parallax::device::kernels::Activation;
use parallax::device::{read_f32, upload_f32, upload_u32};
use parallax::nn::state;
use parallax::nn::{Arch, BatchNorm, Head, Mode, Parameter, Projector, ResNet, ResNetConfig, Stem};
use parallax::optim::{Adam, AdamOptions, Sgd, SgdOptions};
use parallax::{Device, Result};

fn cpu() -> Device {
    Arc::new(CpuDevice::new())
}

fn config(arch: Arch, stem: Stem) -> ResNetConfig {
    ResNetConfig {
        arch,
        stem,
        width: 0.0625,
    }
}

const CIFAR: Stem = Stem::Cifar { padding: 1 };

fn values(device: &Device, parameters: &[&Parameter]) -> Vec<Vec<f32>> {
    parameters
        .iter()
        .map(|p| read_f32(device, &p.value).unwrap())
        .collect()
}

#[test]
fn names_are_torchvisions() -> Result<()> {
    let device = cpu();
    let resnet = ResNet::new(&device, &config(Arch::ResNet50, Stem::ImageNet), 1)?;
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

    let projector = Projector::new(&device, 12, 1)?;
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
    let head = Head::new(&device, 12, 10, 1)?;
    assert_eq!(head.parameters()[0].name, "fc.weight");
    Ok(())
}

#[test]
fn the_network_holds_as_many_numbers_as_its_shape_says() -> Result<()> {
    let device = cpu();
    for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
        for stem in [CIFAR, Stem::ImageNet] {
            let resnet = ResNet::new(&device, &config(arch, stem), 1)?;
            let held: usize = resnet.parameters().iter().map(|p| p.value.len()).sum();
            assert_eq!(held, resnet.shape().parameter_count());
        }
    }
    let projector = Projector::new(&device, 12, 1)?;
    let held: usize = projector.parameters().iter().map(|p| p.value.len()).sum();
    assert_eq!(held, Projector::parameter_count(12));
    let head = Head::new(&device, 12, 10, 1)?;
    let held: usize = head.parameters().iter().map(|p| p.value.len()).sum();
    assert_eq!(held, Head::parameter_count(12, 10));
    Ok(())
}

#[test]
fn every_network_takes_images_to_features() -> Result<()> {
    let device = cpu();
    for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
        for (stem, size) in [
            (CIFAR, 16),
            (Stem::Cifar { padding: 0 }, 17),
            (Stem::ImageNet, 64),
        ] {
            let resnet = ResNet::new(&device, &config(arch, stem), 1)?;
            let images = vec![0.5; 2 * 3 * size * size];
            let images = upload_f32(&device, &images, &[2, 3, size, size])?;
            let tape = Tape::inference(&device);
            let x = tape.constant(&images);
            let features = resnet.forward(&tape, &x, Mode::Evaluation)?;
            assert_eq!(features.shape(), [2, resnet.feature_width()]);
            let features = read_f32(&device, features.tensor())?;
            assert!(features.iter().all(|f| f.is_finite() && *f >= 0.0));
            assert!(features.iter().any(|f| *f > 0.0));
        }
    }
    Ok(())
}

#[test]
fn the_seed_decides_the_initial_values() -> Result<()> {
    let device = cpu();
    let network = |seed| ResNet::new(&device, &config(Arch::ResNet18, CIFAR), seed);
    let (one, same, other) = (network(1)?, network(1)?, network(2)?);
    let of = |resnet: &ResNet| values(&device, &resnet.parameters());
    assert_eq!(of(&one), of(&same));
    assert_ne!(of(&one), of(&other));
    Ok(())
}

#[test]
fn running_statistics_wait_for_the_commit_and_obey_the_gate() -> Result<()> {
    let device = cpu();
    let norm = BatchNorm::new(&device, "bn", 1)?;
    let running = || {
        let [mean, variance] = values(&device, &norm.buffers()).try_into().unwrap();
        (mean[0], variance[0])
    };
    let pass = |numbers: [f32; 4]| -> Result<()> {
        let x = upload_f32(&device, &numbers, &[2, 1, 1, 2])?;
        let tape = Tape::inference(&device);
        norm.forward(
            &tape,
            &tape.constant(&x),
            Mode::Training,
            Activation::Identity,
        )?;
        Ok(())
    };
    pass([1.0, 2.0, 3.0, 4.0])?;
    assert_eq!(running(), (0.0, 1.0));

    let set = upload_u32(&device, &[1], &[1])?;
    norm.commit_running_statistics(&device, 0.1, Some(&set))?;
    assert_eq!(running(), (0.0, 1.0));
    norm.commit_running_statistics(&device, 0.1, None)?;
    assert_eq!(running(), (0.0, 1.0), "a gated step is over, not put off");

    pass([9.0; 4])?;
    norm.discard_running_statistics();
    norm.commit_running_statistics(&device, 0.1, None)?;
    assert_eq!(running(), (0.0, 1.0));

    // Two passes, applied in order: means 2.5 and 10, unbiased variances 5 / 3 and 0.
    pass([1.0, 2.0, 3.0, 4.0])?;
    pass([10.0; 4])?;
    let clear = upload_u32(&device, &[0], &[1])?;
    norm.commit_running_statistics(&device, 0.1, Some(&clear))?;
    let (mean, variance) = running();
    assert!((mean - (0.9 * 0.25 + 1.0)).abs() < 1e-6, "{mean}");
    let expected = 0.9 * (0.9 + 0.1 * 5.0 / 3.0);
    assert!((variance - expected).abs() < 1e-6, "{variance}");
    Ok(())
}

#[test]
fn running_statistics_can_be_the_plain_mean_over_batches() -> Result<()> {
    let device = cpu();
    let resnet = ResNet::new(&device, &config(Arch::ResNet18, CIFAR), 1)?;
    // The mean of the stem's convolution is linear in the brightness of the images.
    let mean_after = |levels: &[f32]| -> Result<Vec<f32>> {
        for (before, &level) in levels.iter().enumerate() {
            let images = upload_f32(&device, &vec![level; 2 * 3 * 64], &[2, 3, 8, 8])?;
            let tape = Tape::inference(&device);
            resnet.forward(&tape, &tape.constant(&images), Mode::Training)?;
            resnet.average_running_statistics(before)?;
        }
        read_f32(&device, &resnet.buffers()[0].value)
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
fn weights_survive_the_way_to_a_file_and_back() -> Result<()> {
    let device = cpu();
    let path = Path::new("encoder.safetensors");
    let one = ResNet::new(&device, &config(Arch::ResNet18, CIFAR), 1)?;
    let two = ResNet::new(&device, &config(Arch::ResNet18, CIFAR), 2)?;
    let all = |resnet: &ResNet| -> Vec<Parameter> {
        let mut all = resnet.parameters();
        all.extend(resnet.buffers());
        all.into_iter().cloned().collect()
    };
    let (ours, theirs) = (all(&one), all(&two));
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.iter().collect(), theirs.iter().collect());
    let metadata = BTreeMap::from([
        ("arch".to_string(), "resnet18".to_string()),
        ("seed".to_string(), "1".to_string()),
    ]);
    let bytes = state::save(&device, &ours, &metadata)?;
    assert_eq!(bytes, state::save(&device, &ours, &metadata)?);
    assert_eq!(state::metadata(&bytes, path)?, metadata);

    assert_ne!(values(&device, &ours), values(&device, &theirs));
    state::load(&device, &bytes, path, &theirs)?;
    assert_eq!(values(&device, &ours), values(&device, &theirs));
    Ok(())
}

fn parameter(device: &Device, name: &str, shape: &[usize], value: f32) -> Parameter {
    let values = vec![value; shape.iter().product()];
    Parameter::new(device, name.to_string(), &values, shape).unwrap()
}

#[test]
fn a_file_that_does_not_fit_is_refused_whole() -> Result<()> {
    let device = cpu();
    let path = Path::new("weights.safetensors");
    let stored = [
        parameter(&device, "same.weight", &[2], 1.0),
        parameter(&device, "shape.weight", &[3], 1.0),
        parameter(&device, "extra.weight", &[1], 1.0),
        parameter(&device, "bn1.num_batches_tracked", &[1], 1.0),
    ];
    let bytes = state::save(
        &device,
        &stored.iter().collect::<Vec<_>>(),
        &BTreeMap::new(),
    )?;
    let wanted = [
        parameter(&device, "same.weight", &[2], 0.0),
        parameter(&device, "shape.weight", &[2], 0.0),
        parameter(&device, "absent.weight", &[2], 0.0),
    ];
    let wanted: Vec<&Parameter> = wanted.iter().collect();
    let error = state::load(&device, &bytes, path, &wanted).unwrap_err();
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
    assert_eq!(
        values(&device, &wanted[..1]),
        [[0.0; 2]],
        "nothing was changed"
    );

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
        let message = state::load(&device, &bytes[..end], path, &wanted)
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
        let message = state::load(&device, broken, path, &wanted)
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{message}");
    }
    Ok(())
}

#[test]
fn an_optimiser_names_the_parameter_without_gradient_and_changes_nothing() -> Result<()> {
    let device = cpu();
    let used = parameter(&device, "used.weight", &[2], 1.0);
    let idle = parameter(&device, "idle.weight", &[2], 1.0);
    let tape = Tape::new(&device);
    let loss = autograd::sum(&tape, &tape.leaf(&used.value))?;
    let gradients = tape.backward(&loss)?;
    let both = [&used, &idle];
    let mut adam = Adam::new(&device, &both, AdamOptions::default())?;
    let options = SgdOptions {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.0,
    };
    let mut sgd = Sgd::new(&device, &both, options)?;
    for error in [
        adam.step(0.1, &gradients, None).unwrap_err(),
        sgd.step(0.1, &gradients, None).unwrap_err(),
    ] {
        assert!(error.to_string().contains("idle.weight"), "{error}");
    }
    assert_eq!((adam.steps(), sgd.steps()), (0, 0));
    assert_eq!(read_f32(&device, &used.value)?, [1.0; 2]);
    Ok(())
}

#[test]
fn a_set_gate_leaves_parameters_and_optimiser_state() -> Result<()> {
    let device = cpu();
    let weight = parameter(&device, "weight", &[3], 1.0);
    let gradients = |device: &Device| -> Result<_> {
        let tape = Tape::new(device);
        let loss = autograd::sum(&tape, &tape.leaf(&weight.value))?;
        tape.backward(&loss)
    };
    let gate = upload_u32(&device, &[1], &[1])?;
    let mut adam = Adam::new(&device, &[&weight], AdamOptions::default())?;
    adam.step(0.1, &gradients(&device)?, Some(&gate))?;
    assert_eq!(read_f32(&device, &weight.value)?, [1.0; 3]);
    assert_eq!(values(&device, &adam.state()), [[0.0; 3]; 2]);
    let options = SgdOptions {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.0,
    };
    let mut sgd = Sgd::new(&device, &[&weight], options)?;
    sgd.step(0.1, &gradients(&device)?, Some(&gate))?;
    assert_eq!(read_f32(&device, &weight.value)?, [1.0; 3]);
    assert_eq!(values(&device, &sgd.state()), [[0.0; 3]; 1]);
    sgd.step(0.1, &gradients(&device)?, None)?;
    assert_ne!(read_f32(&device, &weight.value)?, [1.0; 3]);
    Ok(())
}

#[test]
fn an_optimiser_goes_on_from_its_saved_state() -> Result<()> {
    let device = cpu();
    let path = Path::new("optimizer.safetensors");
    let make = || {
        let weight = parameter(&device, "weight", &[3], 1.0);
        let adam = Adam::new(&device, &[&weight], AdamOptions::default()).unwrap();
        (weight, adam)
    };
    let step = |weight: &Parameter, adam: &mut Adam, factor: f32| -> Result<()> {
        let tape = Tape::new(&device);
        let y = autograd::scale(&tape, factor, &tape.leaf(&weight.value))?;
        let loss = autograd::sum(&tape, &y)?;
        adam.step(0.1, &tape.backward(&loss)?, None)
    };
    let (weight, mut adam) = make();
    step(&weight, &mut adam, 2.0)?;
    let mut saved = adam.state();
    saved.push(&weight);
    let bytes = state::save(&device, &saved, &BTreeMap::new())?;
    step(&weight, &mut adam, -0.3)?;

    let (other, mut resumed) = make();
    let mut state_of_resumed = resumed.state();
    state_of_resumed.push(&other);
    state::load(&device, &bytes, path, &state_of_resumed)?;
    resumed.resume_at(1);
    step(&other, &mut resumed, -0.3)?;
    assert_eq!(
        read_f32(&device, &weight.value)?,
        read_f32(&device, &other.value)?
    );
    Ok(())
}
