use super::*;
use crate::device::Device;
use crate::nn::{Linear, ResNet};
use crate::runs::weights_file::state;

fn config(arch: Arch, width: f64) -> ResNetConfig {
    ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width,
    }
}

/// A file with these tensors and no values, which suffices for names and shapes.
fn file(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> StateDict {
    let info = |(name, shape)| {
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape,
            data_offsets: (0, 0),
        };
        (name, info)
    };
    StateDict {
        path: PathBuf::from("x.safetensors"),
        values: Vec::new(),
        tensors: tensors.into_iter().map(info).collect(),
        metadata: BTreeMap::new(),
    }
}

#[test]
fn the_expected_tensors_are_those_of_the_network() {
    let device = Device::cpu();
    for arch in [Arch::ResNet18, Arch::ResNet50] {
        let config = config(arch, 0.0625);
        let shape = config.shape().unwrap();
        let network = ResNet::new(&config, 0, &device).unwrap();
        let head = Linear::new("fc", shape.feature_width, 3, 0, &device).unwrap();
        let theirs = state(&network, Some(&head));
        let theirs: BTreeMap<String, Vec<usize>> = theirs
            .iter()
            .map(|p| (p.name.clone(), p.value.shape().to_vec()))
            .collect();
        let ours: BTreeMap<_, _> = expected(&shape, Some(3)).into_iter().collect();
        assert_eq!(ours, theirs);
    }
}

/// The width that is derived from the shapes gives a network of the same shapes.
#[test]
fn architecture_and_width_come_from_names_and_shapes() {
    for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
        for width in [0.0625, 0.11, 0.125, 0.25, 0.3, 0.5, 0.77, 1.0, 1.5, 2.0] {
            let shape = config(arch, width).shape().unwrap();
            let file = file(expected(&shape, None));
            let [naming] = &file.namings()[..] else {
                panic!("one naming is there");
            };
            let found = file.describe(naming).expect("it is described");
            assert_eq!(found.arch, arch);
            assert_eq!(found.shape().unwrap(), shape, "{width}");
        }
    }
    let plain = config(Arch::ResNet50, 1.0).shape().unwrap();
    let file = file(expected(&plain, None));
    assert_eq!(file.describe(&file.namings()[0]).unwrap().width, 1.0);
}

#[test]
fn a_width_that_no_network_has_describes_none() {
    let plain = config(Arch::ResNet18, 1.0).shape().unwrap();
    for channels in [0, 1 << 40] {
        let tensors = expected(&plain, None).into_iter();
        let file = file(tensors.map(|(name, mut shape)| {
            if name.contains("conv") {
                shape[..2].copy_from_slice(&[channels, 0]);
            }
            (name, shape)
        }));
        assert!(file.describe(&file.namings()[0]).is_none());
    }
}

#[test]
fn names_are_found_at_any_depth_and_in_any_numbering() {
    let shape = config(Arch::ResNet18, 0.25).shape().unwrap();
    let plain = expected(&shape, None);
    let numbered = |numbers: [u32; 6], prefix: &str| {
        let naming = Naming {
            prefix: prefix.to_string(),
            numbers: Some(numbers),
        };
        let renamed = |(name, shape): &(String, Vec<usize>)| (naming.stored(name), shape.clone());
        (file(plain.iter().map(renamed)), naming.clone())
    };
    // As torchvision numbers them, without the max-pool, and as a part of something else.
    for (numbers, prefix) in [
        ([0, 1, 4, 5, 6, 7], ""),
        ([0, 1, 3, 4, 5, 6], "backbone."),
        ([1, 2, 5, 6, 7, 8], "module.encoder.0."),
    ] {
        let (file, naming) = numbered(numbers, prefix);
        assert!(matches!(&file.namings()[..], [found] if *found == naming));
        let config = file.describe(&naming).unwrap();
        let wanted = Wanted {
            config: None,
            classes: None,
            keeps_first: true,
        };
        assert!(file.mismatch(&naming, &config, &wanted).unwrap().is_empty());
    }
}

#[test]
fn first_names_end_where_the_prefix_does() {
    for (prefix, name, first) in [
        ("", "fc.weight", "fc"),
        ("", "queue", "queue"),
        ("backbone.", "projection_head.0.weight", "projection_head"),
        ("module.encoder.", "module.head.0.bias", "module.head"),
        (
            "module.encoder.",
            "module.encoder.fc.weight",
            "module.encoder.fc",
        ),
        ("", "bn1.num_batches_tracked", "num_batches_tracked"),
    ] {
        assert_eq!(first_name(prefix, name), first);
    }
}
