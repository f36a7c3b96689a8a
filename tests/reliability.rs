//! A training that is killed at any moment, or whose checkpoint is damaged anywhere, is resumed
//! from the newest whole checkpoint and ends with the bits of an uninterrupted one.
//! `PARALLAX_LONG_TESTS=1` kills 50 times and damages 64 offsets.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use parallax::philox::Philox;

#[allow(dead_code)]
mod process;
use process::{parallax, text};

const NEWEST: &str = "checkpoint.safetensors";
const PREVIOUS: &str = "checkpoint-previous.safetensors";

/// Returns the arguments of a training of ten steps that writes a checkpoint after each.
fn training(out: &str) -> Vec<&str> {
    let mut arguments = vec!["supervised", "--data", "shapes", "--width", "0.0625"];
    arguments.extend(["--labels", "0.02", "--batch-size", "8", "--steps", "10"]);
    arguments.extend(["--checkpoint-every", "0", "--seed", "5", "--device", "cpu"]);
    arguments.extend(["--resume", "--out", out]);
    arguments
}

/// Trains to the end in `folder/out`, and returns what was printed as a warning.
fn train(folder: &Path, out: &str) -> String {
    let run = parallax(folder, &training(out))
        .output()
        .expect("it starts");
    let errors = text(&run.stderr);
    assert!(run.status.success(), "{out}: {errors}");
    errors
}

/// Returns the model's bytes, and the steps and losses of a run that has ended.
fn result(run: &Path) -> (Vec<u8>, Vec<(u64, String)>) {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("the metrics");
    let losses = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        (
            line["step"].as_u64().expect("a step"),
            line["loss"].to_string(),
        )
    });
    let model = fs::read(run.join("model.safetensors")).expect("the model");
    (model, losses.collect())
}

fn is_long() -> bool {
    std::env::var_os("PARALLAX_LONG_TESTS").is_some()
}

#[test]
fn a_training_that_is_killed_at_random_moments_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    train(folder.path(), "whole");
    let whole = began.elapsed();
    let expected = result(&folder.path().join("whole"));
    let mut rng = Philox::new(11, [0; 3]);
    let (mut kills, mut runs) = (0, 0);
    while kills < if is_long() { 50 } else { 6 } {
        let out = format!("run{runs}");
        let mut child = parallax(folder.path(), &training(&out))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        sleep(whole.mul_f32(rng.unit()));
        if child.try_wait().expect("its state").is_none() {
            child.kill().expect("it runs");
            kills += 1;
        }
        child.wait().expect("it has ended");
        if folder.path().join(&out).join("summary.json").exists() {
            assert!(
                result(&folder.path().join(&out)) == expected,
                "after {kills} kills"
            );
            runs += 1;
        }
    }
    let last = format!("run{runs}");
    train(folder.path(), &last);
    assert!(
        result(&folder.path().join(&last)) == expected,
        "after {kills} kills"
    );
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), "whole");
    let expected = result(&folder.path().join("whole"));
    // A run that was killed after its second checkpoint.
    let cut = folder.path().join("cut");
    let mut child = parallax(folder.path(), &training("cut"))
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    while !cut.join(PREVIOUS).exists() || !cut.join(NEWEST).exists() {
        assert!(
            child.try_wait().expect("its state").is_none(),
            "it has ended"
        );
        sleep(Duration::from_millis(1));
    }
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    let files = ["config.toml", "metrics.jsonl", PREVIOUS, NEWEST];
    let content = files.map(|file| fs::read(cut.join(file)).unwrap_or_default());
    let len = content[3].len();
    assert!(len > 0, "the run was killed between two checkpoints");

    let mut rng = Philox::new(12, [0; 3]);
    // The header and the digest have most of the first offsets.
    let early = (0..if is_long() { 32 } else { 4 }).map(|i| i * 61 % len.min(4096));
    let late: Vec<usize> = (0..if is_long() { 32 } else { 2 })
        .map(|_| rng.below(len as u32) as usize)
        .collect();
    let restore = |name: &str, newest: &[u8]| {
        let run = folder.path().join(name);
        fs::create_dir_all(&run).expect("a folder");
        for (file, bytes) in files.iter().zip(&content) {
            fs::write(run.join(file), bytes).expect("a copy");
        }
        fs::write(run.join(NEWEST), newest).expect("the damaged checkpoint");
    };
    for offset in early.chain(late) {
        let mut damaged = content[3].clone();
        damaged[offset] ^= 1 << rng.below(8);
        restore("damaged", &damaged);
        let warning = train(folder.path(), "damaged");
        assert!(
            warning.contains("the checkpoint before it"),
            "{offset}: {warning}"
        );
        assert!(
            result(&folder.path().join("damaged")) == expected,
            "offset {offset}"
        );
        fs::remove_dir_all(folder.path().join("damaged")).expect("it exists");
    }
    // A file that ends early, and one without content.
    for short in [len / 2, 0] {
        restore("short", &content[3][..short]);
        let warning = train(folder.path(), "short");
        assert!(
            warning.contains("the checkpoint before it"),
            "{short}: {warning}"
        );
        assert!(
            result(&folder.path().join("short")) == expected,
            "{short} bytes"
        );
        fs::remove_dir_all(folder.path().join("short")).expect("it exists");
    }
}
