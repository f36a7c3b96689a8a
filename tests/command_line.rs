//! The program as a process: what each command leaves behind, and what it says to bad input.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::Rgb;
use serde_json::Value;
use tempfile::TempDir;

mod class_folders;
mod process;
use class_folders::{place, write_images};
use process::{check_refusal, good, json, parallax, refused, text};

/// The losses of a run folder's metrics, as written.
fn losses(run: &Path) -> Vec<String> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("it was written");
    lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("a line is JSON")["loss"].to_string()
        })
        .collect()
}

/// A folder with images that are not square.
fn images() -> TempDir {
    place(40, 36)
}

const CIFAR_RECORD: usize = 1 + 3 * 32 * 32;

/// CIFAR-10's six files with two records each.
fn write_cifar(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let names: String = (0..10).map(|i| format!("class{i}\n")).collect();
    fs::write(dir.join("batches.meta.txt"), names).unwrap();
    for i in 0..6u8 {
        let name = match i {
            5 => "test_batch.bin".to_string(),
            i => format!("data_batch_{}.bin", i + 1),
        };
        let mut records = Vec::new();
        for image in 0..2u8 {
            records.push(2 * i % 10 + image);
            records.extend((1..CIFAR_RECORD).map(|k| (k % 251) as u8 ^ (16 * i + image)));
        }
        fs::write(dir.join(name), records).unwrap();
    }
}

/// `simclr` on the folder set, so small that a run takes a second.
const SMALL: [&str; 12] = [
    "simclr",
    "--data",
    "folder",
    "--data-dir",
    "images",
    "--width",
    "0.0625",
    "--batch-size",
    "8",
    "--steps",
    "3",
    "--out",
];

fn small(out: &str, more: &[&'static str]) -> Vec<String> {
    SMALL
        .iter()
        .chain(&[out])
        .chain(more)
        .map(|word| word.to_string())
        .collect()
}

fn good_small(folder: &Path, out: &str, more: &[&'static str]) -> String {
    let arguments = small(out, more);
    good(
        folder,
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn refused_small(folder: &Path, out: &str, more: &[&'static str], code: i32, words: &[&str]) {
    let arguments = small(out, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(folder, &arguments, code, words);
}

#[test]
fn simclr_on_shapes_leaves_a_whole_run_folder() {
    let base = TempDir::new().unwrap();
    let arguments = [
        "simclr",
        "--width",
        "0.0625",
        "--batch-size",
        "32",
        "--steps",
        "4",
        "--seed",
        "7",
        "--out",
        "run",
    ];
    let said = good(base.path(), &arguments);
    for word in [
        "device  cpu (there is no GPU adapter)",
        "k-nearest-neighbour",
        "chance",
    ] {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
    let run = base.path().join("run");
    let summary = json(&run.join("summary.json"));
    let number = |name: &str| summary[name].as_f64().unwrap_or(f64::NAN);
    assert_eq!(summary["device"], "cpu");
    assert_eq!(summary["protocol"], "sound");
    assert_eq!(number("steps"), 4.0);
    assert!((number("chance_loss") - 63f64.ln()).abs() < 1e-9);
    // Four steps of a narrow network stay near chance.
    for name in ["first_loss", "final_loss"] {
        assert!(
            (number(name) - 63f64.ln()).abs() < 0.5,
            "{name}: {}",
            number(name)
        );
    }
    for name in ["knn_top1", "knn_top1_untrained"] {
        // Ten balanced classes.
        assert!(
            (0.08..0.9).contains(&number(name)),
            "{name}: {}",
            number(name)
        );
    }
    for name in ["seconds", "images_per_second", "peak_bytes"] {
        assert!(number(name) > 0.0, "{name}: {}", number(name));
    }
    let losses = losses(&run);
    assert_eq!(losses.len(), 4);
    let close = |loss: &str, name: &str| (loss.parse::<f64>().unwrap() - number(name)).abs() < 1e-6;
    assert!(close(&losses[0], "first_loss") && close(&losses[3], "final_loss"));
    let config: toml::Table =
        toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    assert_eq!(config["seed"].as_integer(), Some(7));
    assert_eq!(config["device"].as_str(), Some("cpu"));
    let wgpu = config["versions"]["wgpu"].as_str().unwrap();
    assert!(wgpu.starts_with(|c: char| c.is_ascii_digit()), "{wgpu}");
    assert_eq!(config["data"]["digest"].as_str().map(str::len), Some(64));
    let weights = fs::read(run.join("encoder.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    assert_eq!(
        weights.tensor("conv1.weight").unwrap().shape(),
        [4, 3, 3, 3]
    );
    let deep = weights.tensor("layer4.1.bn2.running_var").unwrap();
    assert_eq!(deep.shape(), [32]);
}

#[test]
fn a_seed_is_a_run_and_an_encoder_starts_another() {
    let base = images();
    good_small(base.path(), "first", &["--seed", "3"]);
    good_small(base.path(), "again", &["--seed", "3"]);
    good_small(base.path(), "other", &["--seed", "4"]);
    let of = |run: &str| losses(&base.path().join(run));
    assert_eq!(of("first"), of("again"));
    assert_ne!(of("first"), of("other"));
    good_small(
        base.path(),
        "went-on",
        &["--seed", "3", "--init", "first/encoder.safetensors"],
    );
    assert_ne!(of("first")[0], of("went-on")[0]);
    let config = fs::read_to_string(base.path().join("went-on/config.toml")).unwrap();
    assert!(config.contains("first/encoder.safetensors"), "{config}");

    let said = good_small(
        base.path(),
        "paper",
        &["--protocol", "paper", "--init", "none"],
    );
    assert!(said.contains("k-nearest-neighbour"), "{said}");
    let summary = json(&base.path().join("paper/summary.json"));
    assert_eq!(summary["protocol"], "paper protocol, random start");
}

#[test]
fn a_batch_passes_in_chunks() {
    let base = images();
    let config = |run: &str| -> toml::Table {
        let path = base.path().join(run).join("config.toml");
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let of = |run: &str| losses(&base.path().join(run));
    good_small(base.path(), "whole", &["--no-knn"]);
    assert!(!config("whole")["training"].to_string().contains("micro"));
    good_small(base.path(), "same", &["--no-knn", "--micro-batch", "8"]);
    assert_eq!(of("whole"), of("same"));
    good_small(base.path(), "parts", &["--no-knn", "--micro-batch", "3"]);
    let training = &config("parts")["training"];
    assert_eq!(training["micro_batch"].as_integer(), Some(3));
    assert_ne!(of("whole"), of("parts"));
    // The commands whose loss is a mean over images.
    for command in ["rotnet", "supervised"] {
        let arguments = [
            command,
            "--width",
            "0.0625",
            "--batch-size",
            "8",
            "--micro-batch",
            "3",
            "--steps",
            "2",
            "--out",
            command,
        ];
        good(base.path(), &arguments);
        let training = &config(command)["training"];
        assert_eq!(training["micro_batch"].as_integer(), Some(3));
    }
}

#[test]
fn simclr_takes_cifar10_with_the_name_beside_it() {
    let base = TempDir::new().unwrap();
    write_cifar(&base.path().join("cifar"));
    fs::write(
        base.path().join("cifar/dataset-name.txt"),
        "twelve records\n",
    )
    .unwrap();
    let arguments = [
        "simclr",
        "--data",
        "cifar10",
        "--data-dir",
        "cifar",
        "--width",
        "0.0625",
        "--batch-size",
        "4",
        "--steps",
        "2",
        "--out",
        "run",
    ];
    let said = good(base.path(), &arguments);
    assert!(said.contains("twelve records, 10 images"), "{said}");
    let summary = json(&base.path().join("run/summary.json"));
    assert_eq!(summary["data"], "twelve records");
}

#[test]
fn devices_tells_what_there_is() {
    let base = TempDir::new().unwrap();
    let said = good(base.path(), &["devices"]);
    for word in ["no GPU adapter", "cpu", "--device auto takes cpu"] {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
}

#[test]
fn devices_lists_an_adapter_with_its_limits() {
    // The machine's own drivers: scripts/test.sh makes sure of one.
    let output = Command::new(env!("CARGO_BIN_EXE_parallax"))
        .arg("devices")
        .output()
        .expect("it starts");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for word in [
        "backend",
        "limits",
        "binding",
        "subgroup",
        "features",
        "--device auto takes",
    ] {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
}

#[test]
fn selftest_and_bench_print_their_results() {
    let base = TempDir::new().unwrap();
    let run = |command, seconds, more: &[&str]| {
        let start = [command, "--device", "cpu", "--seconds", seconds, "--json"];
        let arguments = [&start[..], more].concat();
        let output = parallax(base.path(), &arguments).output();
        let output = output.expect("it starts");
        let lines = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {lines}");
        let last = lines.lines().last().expect("it prints a verdict");
        let results: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON");
        (last.to_string(), results)
    };
    let (last, results) = run("selftest", "2", &[]);
    assert!(last.starts_with("selftest: ok"), "{last}");
    let families = results["families"].as_array().expect("a list");
    assert!(
        families
            .iter()
            .any(|family| family["comparisons"].as_u64() > Some(0))
    );
    assert_eq!(results["device"], "cpu");
    let (last, results) = run(
        "bench",
        "4",
        &["--only", "kernels", "--svg", "roofline.svg"],
    );
    assert!(last.starts_with("bench: "), "{last}");
    assert!(results["ceilings"]["f32"].as_f64() > Some(0.0));
    let svg = fs::read_to_string(base.path().join("roofline.svg")).expect("it was written");
    assert!(svg.starts_with("<svg"));
    let words = [
        "unknown part 'all'",
        "ceilings, memory, costs, kernels, steps",
    ];
    refused(base.path(), &["bench", "--only", "all"], 2, &words);
}

#[test]
fn preview_draws_a_sheet() {
    let base = TempDir::new().unwrap();
    let arguments = [
        "preview",
        "--images",
        "3",
        "--views",
        "4",
        "--out",
        "sheet.png",
    ];
    let said = good(base.path(), &arguments);
    assert!(said.contains("sheet.png: 3 images"), "{said}");
    let sheet = image::open(base.path().join("sheet.png"))
        .unwrap()
        .into_rgb8();
    // Cells of 96 pixels with gaps of 4: four views and the image itself in a row.
    assert_eq!(sheet.dimensions(), (5 * 100 + 4, 3 * 100 + 4));
    let cell = |column: u32, row: u32| -> Vec<Rgb<u8>> {
        let (x, y) = (column * 100 + 4, row * 100 + 4);
        (0..96 * 96)
            .map(|i| *sheet.get_pixel(x + i % 96, y + i / 96))
            .collect()
    };
    for row in 0..3 {
        for column in 0..5 {
            let pixels = cell(column, row);
            assert!(
                pixels.iter().any(|p| p != &pixels[0]),
                "cell {column}, {row} has one colour"
            );
            assert!(
                column == 0 || pixels != cell(column - 1, row),
                "cell {column}, {row} is the one before it"
            );
        }
    }
}

#[test]
fn arguments_that_cannot_be_used_end_with_2() {
    let base = images();
    let refused = |more: &[&'static str], words: &[&str]| {
        refused_small(base.path(), "run", more, 2, words);
        assert!(
            !base.path().join("run").exists(),
            "{more:?} left a run folder"
        );
    };
    // clap takes the last of a repeated flag only where it is told to, so these are given in full.
    let full = |arguments: &[&str], words: &[&str]| {
        self::refused(base.path(), arguments, 2, words);
    };
    full(
        &["simclr", "--steps", "0"],
        &["'0'", "--steps", "1 or more"],
    );
    full(
        &["simclr", "--steps", "-1"],
        &["'-1'", "--steps", "1 or more"],
    );
    full(&["simclr", "--steps", "many"], &["--steps", "many"]);
    full(
        &["simclr", "--batch-size", "1", "--width", "0.0625"],
        &["batch size is 1"],
    );
    full(
        &["simclr", "--batch-size", "1000000"],
        &["--batch-size 1000000", "larger than"],
    );
    full(&["simclr", "--data", "mnist"], &["mnist", "cifar10"]);
    full(&["simclr", "--data", "cifar10"], &["--data-dir"]);
    full(&["simclr", "--arch", "vgg"], &["vgg", "resnet18"]);
    full(&["simclr", "--width", "0"], &["width"]);
    full(&["simclr", "--width", "nan"], &["width"]);
    full(&["simclr", "--no-such-flag"], &["--no-such-flag"]);
    full(&["train"], &["train"]);
    refused(&["--learning-rate", "0"], &["--learning-rate", "above 0"]);
    refused(&["--learning-rate", "inf"], &["--learning-rate", "finite"]);
    // A negative number is a value that is out of range, and no option.
    for (option, value, expected) in [
        ("--temperature", "-1", "above 0"),
        ("--temperature", "-inf", "above 0"),
        ("--weight-decay", "-0.5", "0 or more"),
        ("--width", "-1", "above 0"),
        ("--seed", "-1", "from 0 to 9223372036854775807"),
        ("--batch-size", "-1", "1 or more"),
        ("--save-every", "-1", "1 or more"),
        ("--checkpoint-every", "-1", "0 or more"),
    ] {
        full(&["simclr", option, value], &[value, option, expected]);
    }
    full(
        &["preview", "--images", "-1"],
        &["'-1'", "--images", "from 1 to 64"],
    );
    refused(
        &["--micro-batch", "0"],
        &["the micro-batch is 0 images", "use 1 to 8"],
    );
    refused(
        &["--micro-batch", "9"],
        &["micro-batch of 9 images is larger", "use 8 or less"],
    );
    refused(&["--micro-batch", "-2"], &["-2"]);
    refused(&["--micro-batch", "half"], &["--micro-batch", "half"]);
    for command in ["rotnet", "supervised"] {
        full(
            &[command, "--batch-size", "8", "--micro-batch", "9"],
            &["micro-batch of 9 images is larger"],
        );
    }
    refused(&["--temperature", "0"], &["--temperature", "above 0"]);
    refused(&["--weight-decay", "nan"], &["--weight-decay"]);
    refused(&["--protocol", "mine"], &["mine", "sound"]);
    refused(
        &["--protocol", "paper"],
        &["--init FILE.safetensors", "--init none"],
    );
    full(&["preview", "--images", "0"], &["--images"]);

    fs::create_dir(base.path().join("taken")).unwrap();
    fs::write(base.path().join("taken/notes.txt"), "mine").unwrap();
    refused_small(
        base.path(),
        "taken",
        &[],
        2,
        &["taken is not empty", "--out"],
    );
    assert_eq!(
        fs::read(base.path().join("taken/notes.txt")).unwrap(),
        b"mine"
    );
}

#[test]
fn no_arguments_and_help_show_the_commands() {
    let base = TempDir::new().unwrap();
    let output = parallax(base.path(), &[]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let help = good(base.path(), &["--help"]);
    for shown in [text(&output.stderr), help] {
        for command in [
            "simclr",
            "rotnet",
            "supervised",
            "linear",
            "finetune",
            "transfer",
            "attack",
            "knn",
            "embed",
            "devices",
            "selftest",
            "bench",
            "preview",
        ] {
            assert!(shown.contains(command), "{shown}");
        }
    }
}

#[test]
fn wrong_data_files_end_with_1_and_are_named() {
    let base = TempDir::new().unwrap();
    let simclr = |words: &[&str]| {
        let arguments = [
            "simclr",
            "--data",
            "cifar10",
            "--data-dir",
            "cifar",
            "--batch-size",
            "4",
            "--steps",
            "1",
            "--width",
            "0.0625",
            "--out",
            "run",
        ];
        refused(base.path(), &arguments, 1, words);
        assert!(!base.path().join("run").exists());
    };
    let cifar = base.path().join("cifar");
    simclr(&[
        "cifar",
        "does not exist",
        "https://www.cs.toronto.edu",
        "data_batch_1.bin",
    ]);
    write_cifar(&cifar);
    let third = cifar.join("data_batch_3.bin");
    let whole = fs::read(&third).unwrap();
    fs::remove_file(&third).unwrap();
    simclr(&[
        "data_batch_3.bin",
        "https://www.cs.toronto.edu",
        "30,730,000",
    ]);
    fs::write(&third, &whole[..whole.len() - 100]).unwrap();
    simclr(&["data_batch_3.bin", "truncated", "3,073"]);
    // Records without their labels.
    fs::write(&third, &whole[..2 * (CIFAR_RECORD - 1)]).unwrap();
    simclr(&["data_batch_3.bin", "6,144", "3,073"]);
    fs::write(&third, b"").unwrap();
    simclr(&["data_batch_3.bin", "empty"]);
    let mut wrong = whole.clone();
    wrong[CIFAR_RECORD] = 12;
    fs::write(&third, wrong).unwrap();
    simclr(&["data_batch_3.bin", "12"]);

    write_images(&base.path().join("images"), 40, 36);
    let broken = base.path().join("images/train/stripes/5.png");
    fs::write(&broken, "no picture").unwrap();
    refused_small(
        base.path(),
        "run",
        &[],
        1,
        &["5.png", "replace or remove them"],
    );
    fs::remove_dir_all(base.path().join("images/train")).unwrap();
    refused_small(base.path(), "run", &[], 1, &["images", "no folder train"]);
}

#[test]
fn weights_that_do_not_fit_end_with_1_and_are_named() {
    let base = images();
    refused_small(
        base.path(),
        "a",
        &["--init", "none.safetensors"],
        1,
        &["none.safetensors"],
    );
    fs::write(base.path().join("text.safetensors"), "no weights").unwrap();
    refused_small(
        base.path(),
        "b",
        &["--init", "text.safetensors"],
        1,
        &["text.safetensors"],
    );
    let arguments = [
        "simclr",
        "--width",
        "0.125",
        "--batch-size",
        "8",
        "--steps",
        "1",
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--out",
        "wide",
    ];
    good(base.path(), &arguments);
    let foreign = ["--init", "wide/encoder.safetensors"];
    refused_small(
        base.path(),
        "c",
        &foreign,
        1,
        &[
            "wide/encoder.safetensors",
            "0 missing, 0 unexpected, 99 of another shape",
            "bn1.weight has shape [8], expected [4]",
            "and 96 more",
            "use --arch resnet18 --width 0.125",
        ],
    );
}

#[test]
fn devices_that_are_not_there_are_told() {
    let base = images();
    // Without a driver no name can be wrong: there is nothing to choose from.
    for device in ["gpu", "llvmpipe", "banana"] {
        let arguments = small("run", &[]);
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--device", device]);
        refused(base.path(), &arguments, 1, &["adapter", "use the CPU"]);
    }
    // With the machine's own drivers: scripts/test.sh makes sure of an adapter.
    let mut arguments = small("run", &[]);
    arguments.extend(["--device".to_string(), "banana".to_string()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_parallax"))
        .args(&arguments)
        .current_dir(base.path())
        .output()
        .expect("it starts");
    check_refusal(
        &output,
        &arguments,
        2,
        &["unknown device 'banana'", "auto, cpu, gpu"],
    );
}

#[test]
fn a_file_in_the_way_ends_with_2() {
    let base = images();
    fs::write(base.path().join("file"), "").unwrap();
    let below = "file/run is below file, which is a file";
    refused_small(base.path(), "file/run", &[], 2, &[below]);
    refused_small(base.path(), "file", &[], 2, &["the folder file is a file"]);
    let arguments = ["preview", "--out", "file/sheet.png"];
    let below = "file/sheet.png is below file, which is a file";
    refused(base.path(), &arguments, 2, &[below]);
}

#[test]
fn a_loss_that_is_not_finite_ends_with_1_and_names_its_tensor() {
    let base = images();
    // Similarities over so small a temperature overflow.
    let arguments = small("run", &["--temperature", "1e-40"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(
        base.path(),
        &arguments,
        1,
        &["step 1", "nt_xent", "temperature"],
    );
}
