//! Folders of images that are streamed and not held: runs have the bits of runs with held images, and
//! nothing is trained on that did not decode whole.

mod class_folders;
// These tests use some of the devices, and some of the commands.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;
#[allow(dead_code)]
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use parallax::augment::{ImageStore, PaddedCropAugmentation};
use parallax::data::{
    DataKind, Dataset, EpochSampler, Images, LoadOptions, OnBadImage, Split, load_with,
};
use parallax::evaluate::features::{features, set_running_statistics};
use parallax::nn::{Arch, Linear, Module, Normalization, ResNet, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::classifier::{Classifier, ClassifierSettings};
use parallax::objectives::rotnet::{self, RotNet, RotNetSettings};
use parallax::objectives::simclr::{self, SimClr, SimClrSettings};
use parallax::optim::{Optimization, OptimizerOptions};
use parallax::train::{PartialObjective, Trainer};
use parallax::{Device, Error, Result};
use serde_json::Value;
use tempfile::TempDir;

use class_folders::place;
use process::{json, parallax, text};

/// Bytes of an image of [`place`].
const IMAGE: u64 = 3 * 32 * 32;
const STEPS: u64 = 6;

fn read(dir: &Path, options: LoadOptions) -> Result<Dataset> {
    load_with(DataKind::Folder, Some(dir), 0, &options)
}

fn streaming() -> LoadOptions {
    LoadOptions {
        held_bytes: 0,
        ..LoadOptions::default()
    }
}

/// The same set, held and streamed.
fn both(dir: &Path) -> [Dataset; 2] {
    [LoadOptions::default(), streaming()].map(|options| read(dir, options).unwrap())
}

fn is_streamed(split: &Split) -> bool {
    matches!(split.images, Images::Streamed(_))
}

#[test]
fn a_streamed_set_has_the_content_of_the_held_one() {
    let base = place(32, 32);
    let [held, streamed] = both(&base.path().join("images"));
    assert_eq!(streamed.findings.streamed_bytes, Some(32 * IMAGE));
    assert_eq!(held.findings.streamed_bytes, None);
    assert_eq!(held.digest, streamed.digest);
    assert_eq!(held.classes, streamed.classes);
    for (held, streamed) in [(&held.train, &streamed.train), (&held.test, &streamed.test)] {
        assert!(is_streamed(streamed) && !is_streamed(held));
        assert_eq!((streamed.len(), streamed.is_empty()), (16, false));
        assert_eq!(held.labels, streamed.labels);
        assert_eq!(held.files, streamed.files);
        assert_eq!(held.pixels().unwrap(), streamed.pixels().unwrap());
        assert_eq!(held.image(5).unwrap(), streamed.image(5).unwrap());
        let [held_part, part] = [held, streamed].map(|split| split.subset(&[9, 2]));
        assert!(is_streamed(&part));
        assert_eq!(held_part.pixels().unwrap(), part.pixels().unwrap());
        assert_eq!(
            (held_part.labels, held_part.files),
            (part.labels, part.files)
        );
        let [held, streamed] = [held, streamed].map(|split| split.centre_squares(16));
        assert_eq!(held.pixels().unwrap(), streamed.pixels().unwrap());
    }
}

#[test]
fn a_set_is_streamed_if_it_takes_more_than_the_given_bytes() {
    let base = place(32, 32);
    let dir = base.path().join("images");
    for (held_bytes, expected) in [(32 * IMAGE, false), (32 * IMAGE - 1, true)] {
        let options = LoadOptions {
            held_bytes,
            ..LoadOptions::default()
        };
        let dataset = read(&dir, options).unwrap();
        assert_eq!(is_streamed(&dataset.train), expected, "{held_bytes}");
    }
    // With another size, it takes less.
    let options = LoadOptions {
        size: Some(16),
        held_bytes: 8 * IMAGE,
        ..LoadOptions::default()
    };
    assert!(!is_streamed(&read(&dir, options).unwrap().train));
    let [held, streamed] = both(&dir);
    let bytes = |data: &Dataset, batch| ImageStore::bytes_held(&data.train, batch) as u64;
    assert_eq!(bytes(&held, 8), 16 * IMAGE);
    assert_eq!(bytes(&streamed, 8), 5 * 8 * IMAGE, "batches, not the set");
}

#[test]
fn wide_images_are_evaluated_as_squares() {
    let base = place(48, 32);
    let [held, streamed] =
        both(&base.path().join("images")).map(|data| data.at_resolution(16).unwrap());
    assert_eq!(held.digest, streamed.digest);
    assert_eq!((streamed.test.width, streamed.test.height), (16, 16));
    assert_eq!(held.test.pixels().unwrap(), streamed.test.pixels().unwrap());
}

fn encoder() -> ResNetConfig {
    ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    }
}

/// The losses of six steps and the state after them.
fn bits<M: Module, O: PartialObjective<M>>(
    (network, objective): (M, O),
    optimization: Optimization,
    micro_batch: Option<usize>,
) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut trainer = Trainer::new(network, optimization, objective).unwrap();
    if let Some(images) = micro_batch {
        trainer = trainer.with_micro_batch(images);
    }
    // As a run does, which is ahead of the losses that it reads.
    let pending: Vec<_> = (0..STEPS).map(|step| trainer.step(step).unwrap()).collect();
    let losses = pending
        .into_iter()
        .map(|step| trainer.finish(step).unwrap().to_bits());
    let losses = losses.collect();
    let state = trainer.module.state().into_iter().map(|parameter| {
        let values = parameter.value.to_vec::<f32>().unwrap();
        values.iter().map(|value| value.to_bits()).collect()
    });
    (losses, state.collect())
}

fn train(
    method: &str,
    device: &Device,
    split: &Split,
    micro_batch: Option<usize>,
) -> (Vec<u32>, Vec<Vec<u32>>) {
    match method {
        "simclr" => {
            let settings = SimClrSettings {
                micro_batch,
                ..SimClrSettings::of_protocol(Protocol::Sound, encoder(), 32, 6, 1e-6, 5)
            };
            let optimization = settings.optimization;
            let network = simclr::network(&settings, device).unwrap();
            let objective = SimClr::new(settings, split, device).unwrap();
            bits((network, objective), optimization, micro_batch)
        }
        "rotnet" => {
            let settings = RotNetSettings {
                micro_batch,
                ..RotNetSettings::of_protocol(Protocol::Sound, encoder(), 4, 5e-4, 5)
            };
            let optimization = settings.optimization;
            let network = rotnet::network(&settings, device).unwrap();
            let objective = RotNet::new(settings, split, device).unwrap();
            bits((network, objective), optimization, micro_batch)
        }
        _ => {
            let settings = ClassifierSettings {
                batch_size: 4,
                micro_batch,
                optimization: Optimization {
                    optimizer: OptimizerOptions::nesterov(5e-4),
                    learning_rate: 0.05,
                    schedule: Protocol::Sound.schedule(),
                },
                augmentation: PaddedCropAugmentation::default(),
                normalization: Normalization::default(),
                frozen_after_first_epoch: false,
                seed: 5,
            };
            let optimization = settings.optimization;
            let network = ResNet::new(&encoder(), 5, device).unwrap();
            let head = Linear::new("fc", network.feature_width(), 2, 5, device).unwrap();
            // A part of the images, as for a fraction of the labels.
            let members = vec![0, 1, 2, 4, 5, 8, 9, 11, 12, 15];
            let objective =
                Classifier::new(settings, network.shape(), split, members, device).unwrap();
            bits(((network, head), objective), optimization, micro_batch)
        }
    }
}

/// Six steps, which are more than two epochs.
#[test]
fn trainings_have_the_bits_of_trainings_on_held_images() {
    let base = place(32, 32);
    let [held, streamed] = both(&base.path().join("images"));
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        for (method, micro_batch) in [
            ("simclr", None),
            ("simclr", Some(4)),
            ("rotnet", None),
            ("rotnet", Some(2)),
            ("supervised", None),
            ("supervised", Some(3)),
        ] {
            let [held, streamed] =
                [&held, &streamed].map(|data| train(method, &device, &data.train, micro_batch));
            assert_eq!(held.0, streamed.0, "{name}, {method}, {micro_batch:?}");
            assert!(held.1 == streamed.1, "{name}, {method}, {micro_batch:?}");
        }
    }
}

#[test]
fn features_have_the_bits_of_held_images() {
    let base = place(32, 32);
    let [held, streamed] = both(&base.path().join("images"));
    for device in [devices::cpu(), devices::gpu(false)] {
        let found = [&held, &streamed].map(|data| {
            let encoder = ResNet::new(&encoder(), 3, &device).unwrap();
            set_running_statistics(&device, &encoder, &data.train).unwrap();
            let at = |side| features(&device, &encoder, &data.test, side).unwrap();
            [at(32), at(24)]
        });
        assert_eq!(found[0], found[1]);
        // Batches in order, the last one smaller.
        let stores = [&held, &streamed].map(|data| ImageStore::of(&device, &data.train).unwrap());
        for start in (0..16u32).step_by(5) {
            let indices: Vec<u32> = (start..16.min(start + 5)).collect();
            let batches = [
                stores[0].gather(&indices).unwrap(),
                stores[1].gather_in_order(&indices).unwrap(),
            ];
            let [held, streamed] = batches.map(|images| images.to_vec::<f32>().unwrap());
            assert_eq!(held, streamed, "from {start}");
        }
        assert!(stores[1].gather(&[16]).is_err());
    }
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 20]).unwrap();
}

#[test]
fn bad_files_are_named_before_the_first_step_or_left_out() {
    let base = place(32, 32);
    let dir = base.path().join("images");
    for name in ["train/squares/3.png", "test/stripes/7.png"] {
        cut(&dir.join(name));
    }
    let refusals = [LoadOptions::default(), streaming()]
        .map(|options| read(&dir, options).unwrap_err().to_string());
    for name in ["train/squares/3.png", "test/stripes/7.png", "2 of 32"] {
        assert!(refusals[1].contains(name), "{}", refusals[1]);
    }
    assert_eq!(refusals[0], refusals[1]);
    let checks = TempDir::new().unwrap();
    let skipping = |options| LoadOptions {
        on_bad_image: OnBadImage::Skip,
        checks: Some(checks.path().to_path_buf()),
        ..options
    };
    let held = read(&dir, skipping(LoadOptions::default())).unwrap();
    // Checked, then remembered.
    for _ in 0..2 {
        let streamed = read(&dir, skipping(streaming())).unwrap();
        assert!(is_streamed(&streamed.train));
        assert_eq!((streamed.train.len(), streamed.test.len()), (15, 15));
        assert_eq!(held.digest, streamed.digest);
        assert_eq!(held.train.files, streamed.train.files);
        assert_eq!(
            held.train.pixels().unwrap(),
            streamed.train.pixels().unwrap()
        );
        let files = [&held, &streamed].map(|data| data.findings.skipped_files.clone());
        assert_eq!(files[0], files[1]);
        assert_eq!(streamed.findings.skipped_images, Some(2));
        assert_eq!(fs::read_dir(checks.path()).unwrap().count(), 1);
    }
    // What may be left out in one run is an error in another one.
    let options = LoadOptions {
        checks: Some(checks.path().to_path_buf()),
        ..streaming()
    };
    assert_eq!(read(&dir, options).unwrap_err().to_string(), refusals[1]);
}

#[test]
fn images_of_several_sizes_are_refused_in_the_same_words() {
    let base = place(32, 32);
    let dir = base.path().join("images");
    let small = RgbImage::from_pixel(8, 4, Rgb([1, 2, 3]));
    small.save(dir.join("train/squares/9.png")).unwrap();
    for on_bad_image in [OnBadImage::Error, OnBadImage::Skip] {
        let [held, streamed] = [LoadOptions::default(), streaming()].map(|options| {
            let options = LoadOptions {
                on_bad_image,
                ..options
            };
            read(&dir, options).unwrap_err().to_string()
        });
        assert!(held.contains("8 x 4") && held.contains("32 x 32"), "{held}");
        assert_eq!(held, streamed);
    }
}

/// Replaces the content of a file by bytes that are no image. Size and time stay.
fn damage(path: &Path) -> Vec<u8> {
    let before = fs::read(path).unwrap();
    overwrite(path, &vec![7; before.len()]);
    before
}

/// Writes a file, which keeps its time.
fn overwrite(path: &Path, bytes: &[u8]) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_check_is_remembered_until_a_file_changes() {
    let base = place(32, 32);
    let dir = base.path().join("images");
    let checks = base.path().join("cache");
    let options = || LoadOptions {
        checks: Some(checks.clone()),
        ..streaming()
    };
    let first = read(&dir, options()).unwrap();
    let memory: Vec<PathBuf> = fs::read_dir(&checks)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(memory.len(), 1);
    let path = dir.join("train/stripes/4.png");
    let whole = damage(&path);
    // No file is decoded again, so that the damage is not found.
    let again = read(&dir, options()).unwrap();
    assert_eq!(again.digest, first.digest);
    assert_eq!(again.train.files, first.train.files);
    // Without the memory, or with one that is damaged, it is.
    let refusal = |options| read(&dir, options).unwrap_err().to_string();
    assert!(refusal(streaming()).contains("train/stripes/4.png"));
    fs::write(&memory[0], "{}").unwrap();
    assert!(refusal(options()).contains("train/stripes/4.png"));
    overwrite(&path, &whole);
    read(&dir, options()).unwrap();
    // A change of a file's size or time, another file, or another size of the images.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    read(&dir, options()).unwrap();
    fs::copy(&path, dir.join("train/stripes/44.png")).unwrap();
    read(&dir, options()).unwrap();
    let sized = LoadOptions {
        size: Some(16),
        ..options()
    };
    assert_eq!(read(&dir, sized).unwrap().train.width, 16);
    assert_eq!(fs::read_dir(&checks).unwrap().count(), 4);
}

/// A training that finds a damaged image names it and changes nothing. Once the image is restored, the
/// training can be resumed.
#[test]
fn a_damaged_image_stops_the_step_that_needs_it() {
    let base = place(32, 32);
    let [held, streamed] = both(&base.path().join("images"));
    let device = Device::cpu();
    let trainer = |data: &Dataset| {
        let settings = SimClrSettings::of_protocol(Protocol::Sound, encoder(), 32, 4, 1e-6, 5);
        let network = simclr::network(&settings, &device).unwrap();
        let optimization = settings.optimization;
        let objective = SimClr::new(settings, &data.train, &device).unwrap();
        Trainer::new(network, optimization, objective).unwrap()
    };
    let mut reference = trainer(&held);
    let mut trainer = trainer(&streamed);
    let mut batches = EpochSampler::new(16, 4, 5).unwrap();
    let needed = streamed.train.files[batches.batch(3)[2] as usize].clone();
    let path = base.path().join("images").join(&needed);
    let mut whole = Vec::new();
    for step in 0..5 {
        if step == 3 {
            let error = trainer.step(step).err().expect("the image is damaged");
            assert!(matches!(error, Error::Data { .. }), "{error:?}");
            assert!(error.to_string().contains(&needed), "{error}");
            overwrite(&path, &whole);
        }
        let losses = [&mut reference, &mut trainer].map(|trainer| {
            let pending = trainer.step(step).unwrap();
            trainer.finish(pending).unwrap().to_bits()
        });
        assert_eq!(losses[0], losses[1], "step {step}");
        if step == 0 {
            // The images of step 3 are decoded from step 1 on.
            whole = damage(&path);
        }
    }
}

/// The program with the caches of the test.
fn command(folder: &Path, line: &str) -> std::process::Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut command = parallax(folder, &words);
    command.env("PARALLAX_CACHE_DIR", folder.join("cache"));
    command.output().expect("it starts")
}

fn run(folder: &Path, line: &str) -> String {
    let output = command(folder, line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

const IMAGES: &str = "--device cpu --data folder --data-dir images";

/// A summary without times and memory.
fn summary(run: &Path) -> Value {
    let mut summary = json(&run.join("summary.json"));
    for key in [
        "seconds",
        "total_seconds",
        "images_per_second",
        "peak_bytes",
        "peak_bytes_total",
        "start",
        "encoder",
    ] {
        summary[key].take();
    }
    summary
}

#[test]
fn commands_have_the_results_of_held_images() {
    let base = place(32, 32);
    let folder = base.path();
    let small = "--width 0.0625 --batch-size 4 --steps 3 --seed 2";
    let pairs = [
        (format!("simclr {small} --micro-batch 2 --evaluate-every 2"), "encoder"),
        (format!("rotnet {small}"), "encoder"),
        (format!("supervised {small}"), "model"),
        (
            "finetune --labels 0.5 --batch-size 4 --steps 3 --encoder held-simclr/encoder.safetensors"
                .to_string(),
            "model",
        ),
        ("linear --epochs 2 --encoder held-simclr/encoder.safetensors".to_string(), ""),
        (
            "linear --augment --epochs 2 --batch-size 4 --encoder held-simclr/encoder.safetensors"
                .to_string(),
            "",
        ),
        (
            "transfer --resolution 16 --epochs 2 --encoder held-other/encoder.safetensors".to_string(),
            "",
        ),
        ("knn --k 3 --encoder held-simclr/encoder.safetensors".to_string(), ""),
        (
            "attack --method pgd --iterations 2 --eps 4/255 --model held-supervised/model.safetensors"
                .to_string(),
            "",
        ),
    ];
    run(
        folder,
        &format!("simclr {small} --no-knn --device cpu --out held-other"),
    );
    for (i, (line, file)) in pairs.iter().enumerate() {
        let name = match i {
            0 | 2 => line.split(' ').next().unwrap().to_string(),
            _ => i.to_string(),
        };
        for (word, hold) in [("held", "always"), ("streamed", "never")] {
            let printed = run(
                folder,
                &format!("{line} {IMAGES} --hold-images {hold} --out {word}-{name}"),
            );
            let config = fs::read_to_string(folder.join(format!("{word}-{name}/config.toml")));
            let is_streamed = hold == "never";
            assert_eq!(config.unwrap().contains("streamed_bytes"), is_streamed);
            assert_eq!(
                printed.contains("decoded for each batch"),
                is_streamed,
                "{line}"
            );
        }
        let [held, streamed] =
            ["held", "streamed"].map(|word| folder.join(format!("{word}-{name}")));
        assert_eq!(summary(&held), summary(&streamed), "{line}");
        if !file.is_empty() {
            let bytes = |run: &Path| fs::read(run.join(format!("{file}.safetensors"))).unwrap();
            assert!(bytes(&held) == bytes(&streamed), "{line}");
        }
    }
    for (word, hold) in [("held", "always"), ("streamed", "never")] {
        run(
            folder,
            &format!(
                "embed --encoder held-simclr/encoder.safetensors {IMAGES} --hold-images {hold} --out {word}.npy"
            ),
        );
        run(
            folder,
            &format!(
                "preview --data folder --data-dir images --hold-images {hold} --out {word}.png"
            ),
        );
    }
    for end in ["npy", "png"] {
        let [held, streamed] =
            ["held", "streamed"].map(|word| fs::read(folder.join(format!("{word}.{end}"))));
        assert!(held.unwrap() == streamed.unwrap(), "{end}");
    }
    let refused = command(folder, &format!("simclr {IMAGES} --hold-images sometimes"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("auto, always and never"));
}

/// A run is resumed with held or with streamed images, whichever it began with.
#[test]
fn a_run_is_resumed_whether_images_are_held_or_not() {
    let base = place(32, 32);
    let folder = base.path();
    let line = format!("simclr --width 0.0625 --batch-size 4 --no-knn {IMAGES}");
    run(folder, &format!("{line} --steps 6 --out whole"));
    for (i, [first, then]) in [["never", "never"], ["always", "never"], ["never", "always"]]
        .into_iter()
        .enumerate()
    {
        run(
            folder,
            &format!("{line} --steps 3 --hold-images {first} --out {i}"),
        );
        run(
            folder,
            &format!("{line} --steps 6 --hold-images {then} --resume --out {i}"),
        );
        let bytes = |run: &str| fs::read(folder.join(run).join("encoder.safetensors")).unwrap();
        assert!(bytes("whole") == bytes(&i.to_string()), "{first}, {then}");
    }
}

/// An image that was damaged after its check ends the run with an error that names it, after a
/// checkpoint of the steps before. The run is resumed once the image is restored.
#[test]
fn a_run_that_finds_a_damaged_image_can_be_resumed() {
    let base = place(32, 32);
    let folder = base.path();
    let line = format!(
        "simclr --width 0.0625 --batch-size 4 --no-knn --seed 5 --steps 6 --hold-images never {IMAGES}"
    );
    // Its check is remembered.
    let printed = run(folder, &format!("{line} --out whole"));
    assert!(printed.contains("32 files are decoded once"), "{printed}");
    let files = read(&folder.join("images"), LoadOptions::default())
        .unwrap()
        .train
        .files;
    // The page of the run shows four images, which are decoded before the first step.
    let is_shown = |image: &u32| [0, 5, 10, 15].contains(image);
    let batch = EpochSampler::new(16, 4, 5).unwrap().batch(2);
    let needed = batch.into_iter().find(|image| !is_shown(image)).unwrap();
    let needed = &files[needed as usize];
    let path = folder.join("images").join(needed);
    let whole = damage(&path);
    let output = command(folder, &format!("{line} --out parts"));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains(needed) && error.contains("--resume"),
        "{error}"
    );
    assert!(!text(&output.stdout).contains("are decoded once"));
    let lines = fs::read_to_string(folder.join("parts/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "the steps before it are recorded");
    overwrite(&path, &whole);
    let printed = run(folder, &format!("{line} --resume --out parts"));
    assert!(!printed.contains("starts at step 1"), "{printed}");
    let bytes = |run: &str| fs::read(folder.join(run).join("encoder.safetensors")).unwrap();
    assert!(bytes("whole") == bytes("parts"));
}
