//! `--normalize`: how images are normalised for weights from elsewhere and in trainings, what a
//! file remembers of it, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use parallax::autograd::Tape;
use parallax::nn::{Module, Normalization};
use parallax::runs::weights_file::WeightsFile;
use parallax::{Device, Tensor};
use safetensors::SafeTensors;

mod class_folders;
#[allow(dead_code)]
mod process;
#[allow(dead_code)]
mod state_dicts;
use class_folders::place;
use process::{good, refused};
use state_dicts::{resnet18, write};

const DATA: &str = "--device cpu --data folder --data-dir images";
const SMALL: &str = "--width 0.0625 --batch-size 4 --steps 2";

/// Runs the words of a line.
fn run(base: &Path, line: &str) -> String {
    good(base, &line.split_whitespace().collect::<Vec<_>>())
}

fn refuse(base: &Path, line: &str, words: &[&str]) {
    refused(base, &line.split_whitespace().collect::<Vec<_>>(), 2, words);
}

/// The entry `normalization` in the configuration of a run.
fn configured(base: &Path, run: &str) -> Option<String> {
    let text = fs::read_to_string(base.join(run).join("config.toml")).unwrap();
    let config: toml::Table = text.parse().unwrap();
    let words = config.get("normalization")?.as_str();
    words.map(str::to_string)
}

/// The metadata of a file, which a training stores as one entry.
fn metadata(base: &Path, file: &str) -> BTreeMap<String, String> {
    let bytes = fs::read(base.join(file)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let entries = header.metadata().clone().unwrap();
    match entries.get("parallax") {
        Some(json) => serde_json::from_str(json).unwrap(),
        None => entries.into_iter().collect(),
    }
}

/// The features that embed writes, and the normalisation in their metadata.
fn embedded(base: &Path, encoder: &str, more: &str) -> (Vec<f32>, Option<String>) {
    run(
        base,
        &format!("embed --encoder {encoder} --out features --force {DATA} {more}"),
    );
    let bytes = fs::read(base.join("features")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let features = bytemuck::pod_collect_to_vec(file.tensor("features").unwrap().data());
    let name = metadata(base, "features").get("normalization").cloned();
    (features, name)
}

/// The features of the test images, with pixels normalised here.
fn expected(base: &Path, encoder: &str, normalization: Normalization) -> Vec<f32> {
    let device = Device::cpu();
    let (mean, std) = normalization.statistics().unwrap_or(([0.0; 3], [1.0; 3]));
    let mut values = Vec::new();
    for class in ["squares", "stripes"] {
        for i in 0..8 {
            let path = base.join(format!("images/test/{class}/{i}.png"));
            let image = image::open(path).unwrap().to_rgb8();
            for channel in 0..3 {
                let pixel = |byte: u8| (f32::from(byte) / 255.0 - mean[channel]) / std[channel];
                values.extend(image.pixels().map(|p| pixel(p[channel])));
            }
        }
    }
    let images = Tensor::from_slice(&values, &[16, 3, 32, 32], &device).unwrap();
    let loaded = WeightsFile::read(&base.join(encoder)).unwrap();
    let network = loaded.load(&device).unwrap().encoder;
    let tape = Tape::inference(&device);
    let features = network.forward(&tape.constant(&images)).unwrap();
    features.tensor().to_vec().unwrap()
}

fn is_close(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    found.len() == expected.len()
        && pairs
            .into_iter()
            .all(|(x, y)| (x - y).abs() <= 1e-4 * largest)
}

#[test]
fn weights_from_elsewhere_are_used_as_asked() {
    let base = place(32, 32);
    let base = base.path();
    write(&base.join("weights"), &resnet18());
    let words = [
        "cifar10",
        "imagenet",
        "none",
        "0.5/0.25",
        "0.4,0.5,0.6/0.1,0.2,0.3",
    ];
    let all = words.map(|words| expected(base, "weights", words.parse().unwrap()));
    for (words, expected) in words.iter().zip(&all) {
        let (found, name) = embedded(base, "weights", &format!("--normalize {words}"));
        assert!(is_close(&found, expected), "{words}");
        let normalization: Normalization = words.parse().unwrap();
        assert_eq!(name, Some(normalization.to_string()));
        let others = all.iter().filter(|&other| is_close(&found, other));
        assert_eq!(others.count(), 1, "{words}");
    }
    let (found, name) = embedded(base, "weights", "");
    assert!(is_close(&found, &all[0]));
    assert_eq!(name.as_deref(), Some("cifar10"));
    for (command, more) in [
        ("knn", ""),
        ("linear", "--epochs 1"),
        ("transfer", "--epochs 1"),
        ("finetune", "--steps 1 --batch-size 4"),
        ("simclr", &format!("{SMALL} --no-knn")),
    ] {
        let option = match command {
            "simclr" => "--init",
            _ => "--encoder",
        };
        let line = format!("{command} {option} weights --out {command} {DATA} {more}");
        let said = run(base, &format!("{line} --normalize imagenet"));
        assert!(said.contains("normalised by ImageNet's mean"), "{said}");
        assert_eq!(configured(base, command).as_deref(), Some("imagenet"));
        let differs = "normalization: \"imagenet\", now \"cifar10\"";
        refuse(base, &format!("{line} --resume"), &[differs]);
    }
    let model = metadata(base, "finetune/model.safetensors");
    assert_eq!(model["normalization"], "imagenet");
    // An imported file remembers it, and an ONNX model states it.
    run(
        base,
        "weights import weights --out ours --normalize imagenet",
    );
    assert!(is_close(&embedded(base, "ours", "").0, &all[1]));
    run(base, "weights export ours --out ours.onnx");
    run(
        base,
        "weights export weights --out theirs.onnx --normalize imagenet",
    );
    for file in ["ours.onnx", "theirs.onnx"] {
        let bytes = fs::read(base.join(file)).unwrap();
        let model = onnx_rs::parse(&bytes).unwrap();
        let mut about = model.metadata_props.iter();
        let entry = about.find(|entry| entry.key == "normalization").unwrap();
        assert_eq!(entry.value, "imagenet", "{file}");
    }
    refuse(
        base,
        "weights export weights --out state --normalize imagenet",
        &["--format onnx"],
    );
    refuse(
        base,
        &format!("knn --encoder weights {DATA} --normalize 128/64"),
        &["'128/64'", "imagenet"],
    );
}

/// The file of each training is used with the normalisation that it was trained with.
#[test]
fn a_trained_file_remembers_its_normalisation() {
    let base = place(32, 32);
    let base = base.path();
    for (command, file) in [
        ("simclr", "encoder.safetensors"),
        ("rotnet", "encoder.safetensors"),
        ("supervised", "model.safetensors"),
    ] {
        let knn = match command {
            "supervised" => "",
            _ => "--no-knn",
        };
        let line = |out: &str| format!("{command} {SMALL} {knn} {DATA} --out {out}");
        let (plain, named, other) = (
            format!("{command}-plain"),
            format!("{command}-named"),
            format!("{command}-other"),
        );
        // The default leaves no trace.
        run(base, &line(&plain));
        run(base, &format!("{} --normalize cifar10", line(&named)));
        run(base, &format!("{} --normalize imagenet", line(&other)));
        let bytes = |run: &str| fs::read(base.join(run).join(file)).unwrap();
        assert!(bytes(&plain) == bytes(&named), "{command}");
        let [plain_file, other_file] = [&plain, &other].map(|run| format!("{run}/{file}"));
        assert_eq!(metadata(base, &plain_file).get("normalization"), None);
        assert_eq!(configured(base, &plain), None);
        assert_eq!(metadata(base, &other_file)["normalization"], "imagenet");
        assert_eq!(configured(base, &other).as_deref(), Some("imagenet"));
        let weights = |run: &str| {
            let bytes = bytes(run);
            let file = SafeTensors::deserialize(&bytes).unwrap();
            file.tensor("conv1.weight").unwrap().data().to_vec()
        };
        assert!(weights(&plain) != weights(&other), "{command}");
        // It is used again, and no other one is.
        let (found, name) = embedded(base, &other_file, "");
        assert_eq!(name.as_deref(), Some("imagenet"));
        let imagenet = expected(base, &other_file, Normalization::ImageNet);
        assert!(is_close(&found, &imagenet), "{command}");
        let same = embedded(base, &other_file, "--normalize imagenet");
        assert_eq!(same.0, found);
        refuse(
            base,
            &format!("knn --encoder {other_file} {DATA} --normalize cifar10"),
            &["normalisation imagenet", "--normalize is cifar10"],
        );
        refuse(
            base,
            &format!("knn --encoder {plain_file} {DATA} --normalize imagenet"),
            &["normalisation cifar10", "--normalize is imagenet"],
        );
        // A resumed run has its own, whether the default was named or not.
        let differs = "normalization: \"imagenet\", now \"cifar10\"";
        refuse(base, &format!("{} --resume", line(&other)), &[differs]);
        let resumed = format!("{} --normalize imagenet --resume", line(&plain));
        let differs = "normalization: \"cifar10\", now \"imagenet\"";
        refuse(base, &resumed, &[differs]);
        run(base, &format!("{} --resume", line(&named)));
        run(
            base,
            &format!("{command} --config {other}/config.toml --device cpu --out {command}-again"),
        );
        assert!(
            bytes(&other) == bytes(&format!("{command}-again")),
            "{command}"
        );
    }
    let encoder = "simclr-other/encoder.safetensors";
    run(
        base,
        &format!("finetune --encoder {encoder} --steps 1 --batch-size 4 {DATA} --out tuned"),
    );
    let model = metadata(base, "tuned/model.safetensors");
    assert_eq!(model["normalization"], "imagenet");
    run(
        base,
        &format!("simclr {SMALL} --no-knn {DATA} --init {encoder} --out on"),
    );
    let next = metadata(base, "on/encoder.safetensors");
    assert_eq!(next["normalization"], "imagenet");
    let attack = format!("attack --model tuned/model.safetensors --iterations 1 {DATA}");
    run(base, &format!("{attack} --eps 0,2/255 --out attack"));
    refuse(
        base,
        &format!("{attack} --protocol paper --out paper"),
        &["normalisation imagenet"],
    );
    assert!(!base.join("paper").exists());
    let paper = format!("simclr {SMALL} {DATA} --protocol paper --init none --normalize");
    refuse(
        base,
        &format!("{paper} imagenet"),
        &["--normalize imagenet contradicts --protocol paper"],
    );
    run(base, &format!("{paper} cifar10 --print-config"));
}

/// The untrained network is a baseline for encoders of any normalisation.
#[test]
fn an_untrained_network_is_normalised_as_asked() {
    let base = place(32, 32);
    let base = base.path();
    let line = format!("linear --untrained --width 0.0625 --epochs 1 {DATA}");
    run(base, &format!("{line} --out plain"));
    run(base, &format!("{line} --normalize none --out none"));
    assert_eq!(configured(base, "plain"), None);
    assert_eq!(configured(base, "none").as_deref(), Some("none"));
    let loss =
        |run: &str| process::json(&base.join(run).join("summary.json"))["final_loss"].clone();
    assert_ne!(loss("plain"), loss("none"));
}
