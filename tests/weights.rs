//! Weights from elsewhere: which names, types and shapes are read, what is printed and recorded of
//! them, and which files are refused.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

mod class_folders;
mod process;
mod state_dicts;
use class_folders::place;
use process::{good, json, refused};
use state_dicts::{
    StateDict, bytes, converted, noise, numbered, prefixed, resnet, resnet18, tensor, write,
};

const DATA: [&str; 6] = [
    "--data",
    "folder",
    "--data-dir",
    "images",
    "--device",
    "cpu",
];

/// A command on these images.
fn on_images<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [command, &DATA, more].concat()
}

/// A pretraining of one step that starts from `file`, in the run folder `out`.
fn pretraining<'a>(file: &'a str, out: &'a str) -> Vec<&'a str> {
    let small = [
        "simclr",
        "--width",
        "0.0625",
        "--batch-size",
        "4",
        "--steps",
        "1",
    ];
    let more = ["--no-knn", "--init", file, "--out", out];
    on_images(&small, &more)
}

fn config(base: &Path, run: &str) -> toml::Table {
    let text = fs::read_to_string(base.join(run).join("config.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

/// The features that embed writes with `file` as the encoder, its metadata, and what it prints.
fn embedded(base: &Path, file: &str) -> (Vec<f32>, toml::Table, String) {
    let words = on_images(
        &["embed", "--encoder", file],
        &["--out", "features", "--force"],
    );
    let said = good(base, &words);
    let bytes = fs::read(base.join("features")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let features = bytemuck::pod_collect_to_vec(file.tensor("features").unwrap().data());
    let about = header.metadata().clone().unwrap_or_default();
    let about = about
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    (features, about, said)
}

/// Every way of storing the same weights gives the features of the plain file, bit for bit.
#[test]
fn a_prefix_of_any_depth_is_removed_and_recorded() {
    let base = place(32, 32);
    let base = base.path();
    let plain = resnet18();
    write(&base.join("plain"), &plain);
    let (features, about, said) = embedded(base, "plain");
    assert!(!said.contains("prefix"), "{said}");
    assert!(!about.contains_key("init_prefix"));
    for prefix in [
        "backbone.",
        "encoder_q.",
        "module.encoder.",
        "a.b.c.d.e.",
        "model_",
        "0.",
    ] {
        write(&base.join("weights"), &prefixed(prefix, &plain));
        let (found, about, said) = embedded(base, "weights");
        assert_eq!(found, features, "{prefix}");
        assert!(
            said.contains(&format!("the prefix '{prefix}' is removed")),
            "{said}"
        );
        assert_eq!(about["init_prefix"].as_str(), Some(prefix));
    }
    write(&base.join("weights"), &prefixed("module.encoder.", &plain));
    good(base, &pretraining("weights", "run"));
    let found = config(base, "run");
    assert_eq!(found["init_prefix"].as_str(), Some("module.encoder."));
    assert_eq!(found["init"].as_str(), Some("weights"));
    assert!(!found.contains_key("kept_random"));
}

#[test]
fn numbered_parts_are_read_with_a_prefix_or_without() {
    let base = place(32, 32);
    let base = base.path();
    let plain = resnet18();
    write(&base.join("plain"), &plain);
    let (features, ..) = embedded(base, "plain");
    // As torchvision's parts are numbered, and as they are without the max-pool.
    for numbers in [[0, 1, 4, 5, 6, 7], [0, 1, 3, 4, 5, 6]] {
        for prefix in ["", "backbone.", "module.0."] {
            write(
                &base.join("weights"),
                &prefixed(prefix, &numbered(&plain, numbers)),
            );
            let (found, about, said) = embedded(base, "weights");
            assert_eq!(found, features, "{numbers:?} {prefix}");
            assert!(
                said.contains("numbered parts are read as conv1, bn1"),
                "{said}"
            );
            assert_eq!(about["init_names"].as_str(), Some("sequential"));
        }
    }
    write(&base.join("weights"), &numbered(&plain, [0, 1, 4, 5, 6, 7]));
    good(base, &pretraining("weights", "run"));
    assert_eq!(
        config(base, "run")["init_names"].as_str(),
        Some("sequential")
    );
}

#[test]
fn two_prefixes_that_fit_are_both_named() {
    let base = place(32, 32);
    let base = base.path();
    let plain = resnet18();
    for (one, other, named) in [
        ("encoder_q.", "encoder_k.", ["'encoder_q.'", "'encoder_k.'"]),
        ("", "teacher.", ["no prefix", "'teacher.'"]),
    ] {
        let both = [prefixed(one, &plain), prefixed(other, &plain)];
        write(&base.join("weights"), &both.into_iter().flatten().collect());
        refused(base, &pretraining("weights", "run"), 1, &named);
        let words = on_images(&["knn", "--encoder", "weights"], &[]);
        refused(base, &words, 1, &named);
    }
    // One that is not whole does not count.
    let mut momentum = prefixed("encoder_k.", &plain);
    momentum.remove("encoder_k.layer3.0.conv2.weight");
    let both = [prefixed("encoder_q.", &plain), momentum];
    write(&base.join("weights"), &both.into_iter().flatten().collect());
    let (_, about, _) = embedded(base, "weights");
    assert_eq!(about["init_prefix"].as_str(), Some("encoder_q."));
}

#[test]
fn other_types_of_numbers_are_converted() {
    let base = place(32, 32);
    let base = base.path();
    let plain = resnet18();
    write(&base.join("plain"), &plain);
    let (features, ..) = embedded(base, "plain");
    for (dtype, tolerance) in [(Dtype::F64, 0.0), (Dtype::F16, 0.01), (Dtype::BF16, 0.1)] {
        write(&base.join("weights"), &converted(&plain, dtype));
        let (found, about, said) = embedded(base, "weights");
        for (x, y) in found.iter().zip(&features) {
            assert!(
                (x - y).abs() <= tolerance * y.abs().max(1.0),
                "{dtype}: {x} and {y}"
            );
        }
        assert!(
            said.contains(&format!("{dtype} is converted to F32")),
            "{said}"
        );
        assert_eq!(
            about["init_types"].as_str(),
            Some(format!("[\"{dtype}\"]").as_str())
        );
    }
    good(base, &pretraining("weights", "run"));
    let types = config(base, "run")["init_types"].to_string();
    assert_eq!(types, "[\"BF16\"]");
    // Numbers of another kind are no weights.
    let mut whole = plain.clone();
    whole.get_mut("bn1.weight").unwrap().dtype = Dtype::I32;
    write(&base.join("weights"), &whole);
    let words = on_images(&["knn", "--encoder", "weights"], &[]);
    refused(
        base,
        &words,
        1,
        &["bn1.weight holds I32", "F32, F16, BF16 or F64"],
    );
}

#[test]
fn tensors_that_are_not_the_networks_are_left_out_and_counted() {
    let base = place(32, 32);
    let base = base.path();
    let mut tensors = prefixed("backbone.", &resnet18());
    let counters: Vec<String> = tensors
        .keys()
        .filter_map(|name| {
            Some(format!(
                "{}.num_batches_tracked",
                name.strip_suffix(".running_var")?
            ))
        })
        .collect();
    for name in &counters {
        let counter = state_dicts::Tensor {
            shape: Vec::new(),
            dtype: Dtype::I64,
            bytes: 5i64.to_le_bytes().to_vec(),
        };
        tensors.insert(name.clone(), counter);
    }
    for (name, shape) in [
        ("backbone.fc.weight", &[10, 32][..]),
        ("backbone.fc.bias", &[10]),
        ("projection_head.0.weight", &[8, 32]),
        ("projection_head.0.bias", &[8]),
        ("projection_head.2.weight", &[8, 8]),
        ("queue", &[8, 64]),
    ] {
        tensors.insert(name.to_string(), noise(name, shape));
    }
    write(&base.join("weights"), &tensors);
    let (_, about, said) = embedded(base, "weights");
    assert_eq!(counters.len(), 20);
    let counts = "26 tensors are left out: backbone.fc 2, num_batches_tracked 20, projection_head 3, queue 1";
    assert!(said.contains(counts), "{said}");
    assert!(
        about["init_left_out"]
            .as_str()
            .unwrap()
            .contains("\"projection_head\":3")
    );
    good(base, &pretraining("weights", "run"));
    let counted = &config(base, "run")["init_left_out"];
    assert_eq!(counted["queue"].as_integer(), Some(1));
    assert_eq!(counted["num_batches_tracked"].as_integer(), Some(20));

    // More than ten first names are counted.
    for i in 0..30 {
        tensors.insert(format!("head{i:02}.weight"), noise("head", &[1]));
    }
    write(&base.join("weights"), &tensors);
    let (_, _, said) = embedded(base, "weights");
    let line = said.lines().find(|line| line.contains("left out")).unwrap();
    assert!(
        line.contains("56 tensors") && line.ends_with("and 24 more"),
        "{line}"
    );
}

#[test]
fn a_first_convolution_that_does_not_fit_keeps_its_random_values() {
    let base = place(32, 32);
    let base = base.path();
    let absent = "the file has no such tensor and the network [4, 3, 3, 3]";
    for (shape, told) in [
        (
            Some([4, 3, 7, 7]),
            "the file has [4, 3, 7, 7] and the network [4, 3, 3, 3]",
        ),
        (
            Some([4, 1, 3, 3]),
            "the file has [4, 1, 3, 3] and the network [4, 3, 3, 3]",
        ),
        (None, absent),
    ] {
        let mut tensors = prefixed("backbone.", &resnet18());
        tensors.remove("backbone.conv1.weight");
        if let Some(shape) = shape {
            tensors.insert("backbone.conv1.weight".to_string(), noise("conv1", &shape));
        }
        write(&base.join("weights"), &tensors);
        let run = format!("run{}", told.len());
        let said = good(base, &pretraining("weights", &run));
        assert!(
            said.contains("conv1.weight keeps its random values"),
            "{said}"
        );
        assert!(said.contains(told), "{said}");
        let kept = config(base, &run)["kept_random"].to_string();
        assert_eq!(kept, "[\"conv1.weight\"]");
        let summary = json(&base.join(&run).join("summary.json"));
        assert_eq!(summary["kept_random"], serde_json::json!(["conv1.weight"]));
        fs::remove_dir_all(base.join(run)).unwrap();
    }
    // The last file has no first convolution at all; every evaluation takes and records it.
    for (command, more) in [
        ("knn", &[][..]),
        ("linear", &["--epochs", "1"]),
        ("finetune", &["--steps", "1", "--batch-size", "4"]),
    ] {
        let words = on_images(&[command, "--encoder", "weights", "--out", command], more);
        let said = good(base, &words);
        assert!(said.contains(absent), "{said}");
        let kept = config(base, command)["kept_random"].to_string();
        assert_eq!(kept, "[\"conv1.weight\"]");
        let summary = json(&base.join(command).join("summary.json"));
        assert_eq!(summary["kept_random"], serde_json::json!(["conv1.weight"]));
    }
    let (_, about, _) = embedded(base, "weights");
    assert_eq!(about["kept_random"].as_str(), Some("[\"conv1.weight\"]"));
}

#[test]
fn what_does_not_fit_is_counted_with_the_network_that_would() {
    let base = place(32, 32);
    let base = base.path();
    let start = |tensors: &StateDict, words: &[&str]| {
        write(&base.join("weights"), tensors);
        refused(base, &pretraining("weights", "run"), 1, words);
        assert!(!base.join("run").exists());
    };
    let whole = resnet18();
    let mut part = whole.clone();
    part.remove("layer2.0.bn1.weight");
    part.insert("layer3.0.bn2.bias".to_string(), tensor(&[3], &[0.0; 3]));
    part.insert(
        "layer4.5.conv1.weight".to_string(),
        noise("extra", &[32, 32, 3, 3]),
    );
    start(
        &part,
        &[
            "1 missing (layer2.0.bn1.weight)",
            "1 unexpected (layer4.5.conv1.weight)",
            "1 of another shape (layer3.0.bn2.bias has shape [3], expected [16])",
            "no --arch and --width fit",
        ],
    );
    // A deeper network has all tensors of a shallower one, and more.
    start(
        &resnet([3, 4, 6, 3], 2, 4),
        &[
            "resnet18",
            "0 missing, 80 unexpected",
            "and 77 more",
            "--arch resnet34 --width 0.0625",
        ],
    );
    start(
        &resnet([3, 4, 6, 3], 3, 16),
        &["--arch resnet50 --width 0.25"],
    );
    start(
        &prefixed("model.", &resnet([2, 2, 2, 2], 2, 32)),
        &[
            "99 of another shape (model.bn1.weight",
            "--arch resnet18 --width 0.5",
        ],
    );
    // No ResNet at all, and one that is not known here.
    let vit: StateDict = (0..200)
        .map(|i| {
            (
                format!("blocks.{i}.attn.qkv.weight"),
                noise("vit", &[12, 4]),
            )
        })
        .collect();
    start(&vit, &["99 missing", "no --arch and --width fit"]);
    let words = on_images(&["knn", "--encoder", "weights"], &[]);
    refused(
        base,
        &words,
        1,
        &["missing", "use weights of a resnet18, resnet34 or resnet50"],
    );
    write(&base.join("weights"), &resnet([3, 4, 23, 3], 3, 4));
    refused(base, &words, 1, &["resnet18", "unexpected"]);
    // Biases of convolutions would be lost.
    let mut biased = whole;
    biased.insert("conv1.bias".to_string(), noise("bias", &[4]));
    start(&biased, &["1 unexpected (conv1.bias)"]);
}

/// Names and shapes tell the network, which is printed and recorded with the normalisation.
#[test]
fn every_evaluation_takes_weights_from_elsewhere() {
    let base = place(32, 32);
    let base = base.path();
    write(
        &base.join("weights"),
        &prefixed("backbone.", &resnet([3, 4, 6, 3], 3, 4)),
    );
    let network = "resnet50, width 0.0625, stem cifar, padding 1";
    for (command, more) in [
        ("knn", &[][..]),
        ("linear", &["--epochs", "1"]),
        ("transfer", &["--epochs", "1"]),
        ("finetune", &["--steps", "1", "--batch-size", "4"]),
    ] {
        let words = on_images(&[command, "--encoder", "weights", "--out", command], more);
        let said = good(base, &words);
        assert!(said.contains(network), "{said}");
        assert!(
            said.contains("normalised by CIFAR-10's mean and standard deviation"),
            "{said}"
        );
        let config = config(base, command);
        assert_eq!(config["encoder"]["arch"].as_str(), Some("resnet50"));
        assert_eq!(config["encoder"]["width"].as_float(), Some(0.0625));
        assert_eq!(config["encoder"]["stem"].as_str(), Some("cifar, padding 1"));
        assert_eq!(config["normalization"].as_str(), Some("cifar10"));
        assert_eq!(config["init_prefix"].as_str(), Some("backbone."));
        let again = good(base, &[&words[..], &["--resume"]].concat());
        assert!(again.contains("the run has ended"), "{again}");
    }
    let (features, about, said) = embedded(base, "weights");
    assert_eq!(features.len(), 16 * 128);
    assert!(said.contains(network), "{said}");
    for (key, value) in [
        ("arch", "resnet50"),
        ("width", "0.0625"),
        ("normalization", "cifar10"),
    ] {
        assert_eq!(about[key].as_str(), Some(value));
    }
    // The stem for large images is recognised by its first convolution.
    let mut large = resnet18();
    large.insert("conv1.weight".to_string(), noise("conv1", &[4, 3, 7, 7]));
    write(&base.join("weights"), &large);
    let (_, about, said) = embedded(base, "weights");
    assert_eq!(about["stem"].as_str(), Some("imagenet"));
    assert!(!said.contains("random"), "{said}");
    // A classifier of other classes is none of these.
    let words = on_images(&["attack", "--model", "weights", "--out", "attack"], &[]);
    refused(base, &words, 2, &["weights holds no classifier"]);
}

/// A configuration that an earlier version wrote has none of the new keys.
#[test]
fn a_run_of_an_earlier_version_is_resumed() {
    let base = place(32, 32);
    let base = base.path();
    let mut tensors = resnet18();
    tensors.insert("conv1.weight".to_string(), noise("conv1", &[4, 3, 7, 7]));
    tensors.insert("fc.weight".to_string(), noise("fc", &[10, 32]));
    write(&base.join("weights"), &tensors);
    let words = [&pretraining("weights", "run")[..], &["--resume"]].concat();
    good(base, &words);
    let run = base.join("run");
    let mut config = config(base, "run");
    for key in ["kept_random", "normalization", "init_left_out"] {
        assert!(config.remove(key).is_some(), "{key}");
    }
    fs::write(run.join("config.toml"), config.to_string()).unwrap();
    let mut summary = json(&run.join("summary.json"));
    summary
        .as_object_mut()
        .unwrap()
        .remove("kept_random")
        .unwrap();
    fs::write(run.join("summary.json"), summary.to_string()).unwrap();
    let said = good(base, &words);
    assert!(said.contains("the run has ended"), "{said}");
    let said = good(base, &["report", ".", "--out", "report"]);
    assert!(said.contains("1 runs"), "{said}");
    // What it does have still counts.
    let other = [&words[..], &["--seed", "1"]].concat();
    refused(base, &other, 2, &["seed: 0, now 1"]);
}

#[test]
fn a_file_that_is_no_weights_is_named_by_its_kind() {
    let base = place(32, 32);
    let base = base.path();
    let zip = [
        &b"PK\x03\x04\x00\x00\x08\x08"[..],
        &[0; 22],
        b"archive/data.pkl",
        &[0; 64],
    ]
    .concat();
    let kinds: [(&str, &[u8], &[&str]); 7] = [
        (
            "lfs.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46830571\n",
            &["a Git LFS pointer", "git lfs pull"],
        ),
        (
            "page.safetensors",
            b"<!DOCTYPE html><html><title>404</title></html>\n",
            &["an HTML page"],
        ),
        (
            "xml.safetensors",
            b"<?xml version=\"1.0\"?><Error/>",
            &["an XML page"],
        ),
        (
            "resnet18.pth",
            &zip,
            &[
                "a PyTorch file",
                "torch.load('resnet18.pth'",
                "'resnet18.safetensors'",
            ],
        ),
        (
            "old.ckpt",
            b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dict",
            &["a PyTorch file"],
        ),
        ("empty.safetensors", b"", &["empty"]),
        (
            "notes.txt",
            b"no weights, but a longer text than a header",
            &["not a safetensors file"],
        ),
    ];
    let whole = bytes(&resnet18());
    for (name, content, words) in kinds {
        fs::write(base.join(name), content).unwrap();
        let words = [words, &[name]].concat();
        refused(base, &pretraining(name, "run"), 1, &words);
        for command in ["knn", "linear", "transfer", "finetune", "embed"] {
            let out = ["--out", "out"];
            refused(
                base,
                &on_images(&[command, "--encoder", name], &out),
                1,
                &words,
            );
        }
        let attack = on_images(&["attack", "--model", name], &["--out", "out"]);
        refused(base, &attack, 1, &words);
    }
    // Wherever a file ends early, the numbers of bytes are given.
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for (end, expected) in [
        (1, 8),
        (7, 8),
        (8, header),
        (100, header),
        (header - 1, header),
        (header, whole.len()),
        (whole.len() / 2, whole.len()),
        (whole.len() - 1, whole.len()),
    ] {
        fs::write(base.join("part"), &whole[..end]).unwrap();
        let (found, expected) = (format!("{end} bytes found"), format!("{expected} expected"));
        let words = ["part", "ends early", &found, &expected];
        refused(
            base,
            &on_images(&["knn", "--encoder", "part"], &[]),
            1,
            &words,
        );
        refused(base, &pretraining("part", "run"), 1, &words);
    }
    let folder = on_images(&["knn", "--encoder", "images"], &[]);
    refused(base, &folder, 1, &["images", "it is a folder"]);
    refused(
        base,
        &on_images(&["knn", "--encoder", "none"], &[]),
        1,
        &["none", "exists"],
    );
    assert!(!base.join("run").exists() && !base.join("out").exists());
}

/// The refusal holds for every command that reads weights, and leaves nothing behind.
#[test]
fn weights_that_are_no_numbers_are_refused_where_they_are_read() {
    let base = place(32, 32);
    let base = base.path();
    let with = |name: &str, value: f32| {
        let mut tensors = resnet18();
        let changed = tensors.get_mut(name).unwrap();
        let last = changed.bytes.len() - 4;
        changed.bytes[last..].copy_from_slice(&value.to_le_bytes());
        tensors
    };
    let huge = |tensors: &StateDict| {
        let mut tensors = converted(tensors, Dtype::F64);
        tensors.get_mut("bn1.bias").unwrap().bytes[..8].copy_from_slice(&1e300f64.to_le_bytes());
        tensors
    };
    for (tensors, name, value) in [
        (
            with("layer1.0.conv1.weight", f32::NAN),
            "layer1.0.conv1.weight",
            "NaN",
        ),
        (
            with("layer2.0.bn1.weight", f32::INFINITY),
            "layer2.0.bn1.weight",
            "inf",
        ),
        (
            with("layer4.1.bn2.running_mean", f32::NEG_INFINITY),
            "layer4.1.bn2.running_mean",
            "-inf",
        ),
        (with("bn1.running_var", -1.0), "bn1.running_var", "-1"),
        (
            converted(&with("bn1.weight", f32::INFINITY), Dtype::F16),
            "bn1.weight",
            "inf",
        ),
        (huge(&resnet18()), "bn1.bias", "1e300"),
    ] {
        let tensors = prefixed("backbone.", &tensors);
        write(&base.join("weights"), &tensors);
        let stored = format!("backbone.{name}");
        let words = ["weights", &stored, value];
        refused(base, &pretraining("weights", "out"), 1, &words);
        for command in ["knn", "linear", "transfer", "finetune", "embed"] {
            let more = ["--out", "out"];
            refused(
                base,
                &on_images(&[command, "--encoder", "weights"], &more),
                1,
                &words,
            );
        }
        let grid = [
            "reproduce",
            "--scale",
            "smoke",
            "--init",
            "weights",
            "--out",
            "out",
        ];
        refused(base, &grid, 1, &words);
        assert!(!base.join("out").exists());
    }
    // A number that no network reads does not matter.
    let mut unused = resnet18();
    unused.insert("queue".to_string(), tensor(&[1], &[f32::NAN]));
    write(&base.join("weights"), &unused);
    embedded(base, "weights");
}

/// A classifier and a checkpoint of this program are checked as well.
#[test]
fn own_files_that_are_no_numbers_are_refused() {
    let base = place(32, 32);
    let base = base.path();
    let small = [
        "--width",
        "0.0625",
        "--batch-size",
        "4",
        "--steps",
        "3",
        "--out",
        "run",
    ];
    let supervised = on_images(&["supervised"], &small);
    let with_nan = |file: &str, name: &str| {
        let path = base.join("run").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let at = stored.tensor(name).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    };
    let stopped = [&supervised[..], &["--time-limit", "0.001"]].concat();
    refused(base, &stopped, 75, &["after step 1 of 3"]);
    with_nan("checkpoint.safetensors", "layer3.0.conv1.weight");
    let resumed = [&supervised[..], &["--resume"]].concat();
    let words = [
        "run/checkpoint.safetensors",
        "does not agree with its digest",
    ];
    refused(base, &resumed, 1, &words);

    fs::remove_dir_all(base.join("run")).unwrap();
    good(base, &supervised);
    // A width that no network has.
    let model = base.join("run/model.safetensors");
    let whole = fs::read(&model).unwrap();
    let find = br#"\"width\":\"0.0625\""#;
    let at = whole.windows(find.len()).position(|part| part == find);
    let mut wide = whole.clone();
    wide[at.unwrap()..][..find.len()].copy_from_slice(br#"\"width\":\"9e9999\""#);
    fs::write(&model, wide).unwrap();
    let info = ["weights", "info", "run/model.safetensors"];
    refused(base, &info, 1, &["run/model.safetensors", "width is inf"]);
    fs::write(&model, whole).unwrap();
    with_nan("model.safetensors", "fc.weight");
    let attack = on_images(
        &["attack", "--model", "run/model.safetensors"],
        &["--out", "out"],
    );
    refused(
        base,
        &attack,
        1,
        &["run/model.safetensors", "fc.weight", "NaN"],
    );
    assert!(!base.join("out").exists());
}

/// Finite weights can overflow; no file is written then, and no accuracy is printed.
#[test]
fn features_that_are_no_numbers_are_not_written() {
    let base = place(32, 32);
    let base = base.path();
    let mut tensors = resnet18();
    for name in ["bn1.weight", "layer1.0.bn1.weight", "layer1.0.bn2.weight"] {
        tensors.insert(name.to_string(), tensor(&[4], &[f32::MAX; 4]));
    }
    write(&base.join("weights"), &tensors);
    let words = ["image 1 of 16 (", "squares/0.png)", "no finite number"];
    let embed = on_images(&["embed", "--encoder", "weights"], &["--out", "features"]);
    refused(base, &embed, 1, &words);
    assert!(!base.join("features").exists());
    refused(
        base,
        &on_images(&["knn", "--encoder", "weights"], &[]),
        1,
        &words,
    );
    // The file of an earlier run stays as it is.
    fs::write(base.join("features"), "kept").unwrap();
    refused(base, &[&embed[..], &["--force"]].concat(), 1, &words);
    assert_eq!(fs::read(base.join("features")).unwrap(), b"kept");
}

/// An export has every tensor of torchvision's network, with its counters and its classifier, and
/// reads back as the same encoder.
#[test]
fn weights_go_to_torchvision_and_back() {
    let base = place(32, 32);
    let base = base.path();
    let mut large = resnet18();
    large.insert("conv1.weight".to_string(), noise("conv1", &[4, 3, 7, 7]));
    write(
        &base.join("theirs"),
        &prefixed("backbone.", &converted(&large, Dtype::F64)),
    );
    let (features, ..) = embedded(base, "theirs");
    let said = good(base, &["weights", "info", "theirs"]);
    for word in [
        "resnet18, width 0.0625, stem imagenet, 32 features",
        "backbone.",
        "F64 to F32",
    ] {
        assert!(said.contains(word), "{said}");
    }

    good(base, &["weights", "import", "theirs", "--out", "ours"]);
    let said = good(base, &["weights", "info", "ours"]);
    assert!(said.contains("written by elsewhere"), "{said}");
    assert_eq!(embedded(base, "ours").0, features);

    good(base, &["weights", "export", "ours", "--out", "exported"]);
    let bytes = fs::read(base.join("exported")).unwrap();
    let exported = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = large.keys().cloned().collect();
    let norms = large
        .keys()
        .filter_map(|name| name.strip_suffix("running_var"));
    names.extend(norms.map(|norm| format!("{norm}num_batches_tracked")));
    names.extend(["fc.weight", "fc.bias"].map(str::to_string));
    names.sort();
    let mut found = exported.names();
    found.sort_unstable();
    assert_eq!(found, names);
    for (name, tensor) in &large {
        assert_eq!(
            exported.tensor(name).unwrap().data(),
            tensor.bytes,
            "{name}"
        );
    }
    let counter = exported.tensor("bn1.num_batches_tracked").unwrap();
    assert_eq!((counter.dtype(), counter.shape()), (Dtype::I64, &[][..]));
    assert_eq!(exported.tensor("fc.weight").unwrap().shape(), [1000, 32]);
    assert_eq!(embedded(base, "exported").0, features);

    // A classifier is exported as it is.
    let small = [
        "supervised",
        "--width",
        "0.0625",
        "--batch-size",
        "4",
        "--steps",
        "1",
        "--out",
        "run",
    ];
    good(base, &on_images(&small, &[]));
    good(
        base,
        &[
            "weights",
            "export",
            "run/model.safetensors",
            "--out",
            "classifier",
        ],
    );
    let [bytes, own] =
        ["classifier", "run/model.safetensors"].map(|name| fs::read(base.join(name)).unwrap());
    let [exported, own] = [&bytes, &own].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    for name in own.names() {
        assert_eq!(
            exported.tensor(name).unwrap(),
            own.tensor(name).unwrap(),
            "{name}"
        );
    }

    for action in ["import", "export"] {
        let same = ["weights", action, "theirs", "--out", "theirs", "--force"];
        refused(base, &same, 2, &["is the file of weights"]);
        let exists = ["weights", action, "theirs", "--out", "exported"];
        refused(base, &exists, 2, &["exists", "--force"]);
    }
    // The padding of a small conv1 is in no file from elsewhere.
    write(&base.join("small"), &resnet18());
    let import = ["weights", "import", "small", "--out", "padded"];
    good(base, &[&import[..], &["--stem-padding", "2"]].concat());
    let said = good(base, &["weights", "info", "padded"]);
    assert!(said.contains("stem cifar, padding 2"), "{said}");
    assert_ne!(embedded(base, "padded").0, embedded(base, "small").0);
    for file in ["theirs", "padded"] {
        let import = ["weights", "import", file, "--out", "new"];
        let words = [&import[..], &["--stem-padding", "1"]].concat();
        refused(base, &words, 2, &["--stem-padding", file]);
    }

    let mut headless = resnet18();
    headless.remove("conv1.weight");
    write(&base.join("headless"), &headless);
    let export = ["weights", "export", "headless", "--out", "new"];
    refused(base, &export, 1, &["headless", "first convolution"]);
}

#[test]
fn the_vote_of_neighbours_is_chosen_and_recorded() {
    let base = place(32, 32);
    let base = base.path();
    write(&base.join("weights"), &resnet18());
    let vote = ["--k", "5", "--knn-temperature", "0.07", "--out", "run"];
    let words = on_images(&["knn", "--encoder", "weights"], &vote);
    let said = good(base, &words);
    assert!(said.contains("(k = 5)"), "{said}");
    let summary = json(&base.join("run/summary.json"));
    assert_eq!(
        (&summary["knn_k"], &summary["knn_temperature"]),
        (&5.into(), &0.07.into())
    );
    let config = config(base, "run");
    assert_eq!(config["knn"]["k"].as_integer(), Some(5));
    assert_eq!(config["knn"]["temperature"].as_float(), Some(0.07));
    for (option, value, told) in [
        ("--k", "0", "1 or more"),
        ("--k", "17", "16 training images"),
        ("--knn-temperature", "0", "from 0.01"),
        ("--knn-temperature", "-1", "from 0.01"),
    ] {
        let words = on_images(
            &["knn", "--encoder", "weights", option, value],
            &["--out", "new"],
        );
        refused(base, &words, 2, &[option, told]);
        assert!(!base.join("new").exists());
    }
}
