//! A training that was killed and resumed has bitwise the losses and the weights of one that was not
//! interrupted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use serde_json::Value;

const STEPS: usize = 40;

/// Two classes of eight images in each split.
fn write_images(dir: &Path) {
    for split in ["train", "test"] {
        for (number, class) in ["dark", "bright"].iter().enumerate() {
            let folder = dir.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..8u32 {
                RgbImage::from_fn(32, 32, |x, y| {
                    let shade = (x * (i + 3) + y * 5) as u8 / 4 + 120 * number as u8;
                    Rgb([shade, shade / 2, 90])
                })
                .save(folder.join(format!("{i}.png")))
                .unwrap();
            }
        }
    }
}

fn parallax(folder: &Path, arguments: &[&str], out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parallax"));
    command
        .args(arguments)
        .args([
            "--data",
            "folder",
            "--data-dir",
            "images",
            "--device",
            "cpu",
        ])
        .args(["--checkpoint-every", "0", "--steps", &STEPS.to_string()])
        .args(["--out", out])
        .current_dir(folder)
        .stdout(Stdio::null());
    command
}

fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

/// Kills a run once it has taken some steps and written a checkpoint.
fn cut(folder: &Path, arguments: &[&str], out: &str) {
    let mut child = parallax(folder, arguments, out).spawn().expect("it starts");
    let run = folder.join(out);
    let deadline = Instant::now() + Duration::from_secs(120);
    while lines(&run).len() < 4 || !run.join("checkpoint.safetensors").exists() {
        assert!(Instant::now() < deadline, "no step was taken");
        assert!(
            child.try_wait().expect("it can be asked").is_none(),
            "{arguments:?} ended before it could be cut"
        );
        sleep(Duration::from_millis(2));
    }
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
    assert!(
        !run.join("summary.json").exists(),
        "the run ended before it could be cut; give it more steps"
    );
}

fn check(folder: &Path, arguments: &[&str], file: &str) {
    let name = arguments[0];
    let (whole, parts) = (format!("{name}-whole"), format!("{name}-parts"));
    let ended = parallax(folder, arguments, &whole)
        .status()
        .expect("it starts");
    assert!(ended.success());
    cut(folder, arguments, &parts);
    let resumed = [arguments, &["--resume"]].concat();
    let ended = parallax(folder, &resumed, &parts)
        .status()
        .expect("it starts");
    assert!(ended.success(), "{name} does not go on");
    let (whole, parts) = (folder.join(whole), folder.join(parts));
    let losses = |run: &Path| -> Vec<(Value, Value, Value)> {
        let all = lines(run);
        all.into_iter()
            .map(|mut line| {
                let mut take = |key| line[key].take();
                (take("step"), take("loss"), take("learning_rate"))
            })
            .collect()
    };
    assert_eq!(losses(&whole).len(), STEPS);
    assert_eq!(losses(&parts), losses(&whole), "{name}");
    let bytes = |run: &Path, file: &str| fs::read(run.join(file)).expect("it was written");
    assert!(
        bytes(&parts, file) == bytes(&whole, file),
        "{name}: {file} differs"
    );
    let step = "encoder-step20.safetensors";
    assert!(
        bytes(&parts, step) == bytes(&whole, step),
        "{name}: {step} differs"
    );
    // Its last state stays, so that it can be extended.
    assert!(whole.join("checkpoint.safetensors").exists());
    assert!(!whole.join("checkpoint-previous.safetensors").exists());
    // What has ended is not trained again, so that a job that is requeued once too often succeeds.
    let before = bytes(&whole, "metrics.jsonl");
    let output = parallax(folder, &resumed, &format!("{name}-whole"))
        .stdout(Stdio::piped())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("has ended"));
    assert!(bytes(&whole, "metrics.jsonl") == before);
}

const SMALL: [&str; 4] = ["--width", "0.0625", "--save-every", "20"];

#[test]
fn simclr_goes_on_where_it_was_cut() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let arguments = [&["simclr", "--batch-size", "8"][..], &SMALL].concat();
    check(base.path(), &arguments, "encoder.safetensors");
}

#[test]
fn a_batch_in_chunks_goes_on_where_it_was_cut() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let cut = ["simclr", "--batch-size", "8", "--micro-batch", "3"];
    check(
        base.path(),
        &[&cut[..], &SMALL].concat(),
        "encoder.safetensors",
    );
}

#[test]
fn rotnet_goes_on_where_it_was_cut() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let arguments = [&["rotnet", "--batch-size", "4"][..], &SMALL].concat();
    check(base.path(), &arguments, "encoder.safetensors");
}

/// Under the paper's protocol, whose learning rate and batch norm depend on where a run is.
#[test]
fn supervised_training_goes_on_where_it_was_cut() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let arguments = [
        &["supervised", "--batch-size", "8", "--protocol", "paper"][..],
        &SMALL,
    ]
    .concat();
    check(base.path(), &arguments, "model.safetensors");
}

#[test]
fn a_run_goes_on_with_its_own_settings_only() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let arguments = [&["simclr", "--batch-size", "8"][..], &SMALL].concat();
    cut(base.path(), &arguments, "run");
    let refused = |more: &[&str], words: &[&str]| {
        let arguments = [&arguments, more].concat();
        let output = parallax(base.path(), &arguments, "run")
            .stderr(Stdio::piped())
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        for word in words {
            assert!(errors.contains(word), "'{word}' is not in: {errors}");
        }
    };
    refused(
        &["--resume", "--temperature", "0.25"],
        &["training.temperature: 0.5, now 0.25"],
    );
    refused(&["--resume", "--seed", "1"], &["seed: 0, now 1"]);
    refused(
        &["--resume", "--micro-batch", "4"],
        &["training.micro_batch: none, now 4"],
    );
    // Without --resume a folder that holds a run is not touched.
    refused(&[], &["not empty"]);
    // Damaged checkpoints are named.
    for name in ["checkpoint.safetensors", "checkpoint-previous.safetensors"] {
        fs::write(base.path().join("run").join(name), b"nothing").unwrap();
    }
    let resumed = [&arguments[..], &["--resume"]].concat();
    let output = parallax(base.path(), &resumed, "run")
        .stderr(Stdio::piped())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("checkpoint.safetensors"));
}

/// The loss scale and the steps since it changed are part of the checkpoint.
#[test]
fn f16_training_goes_on_where_it_was_cut() {
    let base = tempfile::tempdir().unwrap();
    write_images(&base.path().join("images"));
    let half = ["simclr", "--batch-size", "8", "--precision", "f16"];
    check(
        base.path(),
        &[&half[..], &SMALL].concat(),
        "encoder.safetensors",
    );
}
