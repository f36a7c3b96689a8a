//! A command that is stopped, by a time limit or a signal, keeps what it has computed; resumed, it
//! ends with the bits of a command that was not stopped.

mod process;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use process::{check_refusal, good, parallax, refused, text};
use serde_json::Value;
use tempfile::TempDir;

/// Shorter than any start, so that each process takes one step or batch.
const AT_ONCE: &str = "0.001";

/// Images of each of two classes in both splits: more than one batch of 128, which evaluations
/// take.
const IMAGES: u32 = 70;

/// A folder with images.
fn place() -> TempDir {
    let base = TempDir::new().unwrap();
    for split in ["train", "test"] {
        for (number, class) in ["dark", "bright"].iter().enumerate() {
            let folder = base.path().join("images").join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..IMAGES {
                let image = RgbImage::from_fn(16, 16, |x, y| {
                    let shade = ((x * (i % 7 + 3) + y * 5 + i) % 120) as u8 + 60 * number as u8;
                    Rgb([shade, shade / 2, 90])
                });
                image.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    base
}

/// The words of a command that runs on these images.
fn on_images<'a>(command: &[&'a str], out: &'a str) -> Vec<&'a str> {
    let data = ["--data", "folder", "--data-dir", "images"];
    [command, &data, &["--device", "cpu", "--out", out]].concat()
}

/// Runs a command until it ends, with the same words each time, and returns how often it was
/// stopped.
fn in_pieces(folder: &Path, words: &[&str]) -> usize {
    let words = [words, &["--time-limit", AT_ONCE, "--resume"]].concat();
    for stops in 0..100 {
        let output = parallax(folder, &words).output().expect("it starts");
        if output.status.success() {
            assert_eq!(text(&output.stderr), "");
            return stops;
        }
        let words = ["stopped by the time limit of 0.001 s", "continue with: "];
        check_refusal(&output, &words, 75, &words);
    }
    panic!("{words:?} does not end");
}

/// A run's summary without what two runs do not have in common.
fn summary(run: &Path) -> Value {
    let mut summary = process::json(&run.join("summary.json"));
    let entries = summary.as_object_mut().unwrap();
    entries.retain(|key, _| !key.contains("second") && !key.contains("peak_bytes"));
    assert!(!entries.is_empty());
    summary
}

/// A line of metrics without its time.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("a line is JSON");
        line["seconds"].take();
        line
    });
    lines.collect()
}

/// Runs a command in one piece and in as many as it can be cut into, compares what the runs leave,
/// and returns how often the second was stopped.
fn compare(folder: &Path, command: &[&str], files: &[&str]) -> usize {
    let name = command[0];
    let [whole, parts] = [format!("{name}-whole"), format!("{name}-parts")];
    let said = good(folder, &on_images(command, &whole));
    let words = on_images(command, &parts);
    let stops = in_pieces(folder, &words);
    let [whole, parts] = [&whole, &parts].map(|name| folder.join(name));
    assert_eq!(summary(&parts), summary(&whole), "{name}");
    assert_eq!(metrics(&parts), metrics(&whole), "{name}");
    for file in files {
        let bytes = |run: &Path| fs::read(run.join(file)).expect("it was written");
        assert!(bytes(&parts) == bytes(&whole), "{name}: {file} differs");
    }
    let names = |run: &Path| {
        let entries = fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&parts), names(&whole), "{name}: nothing is left over");
    // What has ended prints its results again.
    let again = good(folder, &[&words[..], &["--resume"]].concat());
    assert!(
        again.contains("the run has ended; its results are in"),
        "{again}"
    );
    let last = |said: &str| said.lines().rfind(|l| l.contains('%')).map(str::to_string);
    assert!(last(&said).is_some(), "{said}");
    if name != "attack" {
        assert_eq!(last(&again), last(&said));
    }
    stops
}

#[test]
fn pretraining_in_pieces() {
    let base = place();
    let simclr = [
        "simclr",
        "--steps",
        "4",
        "--batch-size",
        "8",
        "--width",
        "0.0625",
    ];
    // After three of four steps, and in the middle of the training and the test images of two
    // encoders.
    assert_eq!(
        compare(base.path(), &simclr, &["encoder.safetensors"]),
        3 + 4
    );
    // And twice between batches of 64 images while the rotation accuracy is measured.
    let rotnet = [&["rotnet"], &simclr[1..]].concat();
    assert_eq!(
        compare(base.path(), &rotnet, &["encoder.safetensors"]),
        3 + 2 + 4
    );
}

/// A training that ends because its loss is flat ends at the same step, whether or not it is
/// stopped there. A resumed training has the loss scale of f16 from before the stop.
#[test]
fn a_training_of_unknown_length_in_pieces() {
    let base = place();
    let command = [
        &[
            "supervised",
            "--steps",
            "60",
            "--batch-size",
            "16",
            "--width",
            "0.0625",
        ][..],
        &[
            "--stop-when-flat",
            "3",
            "--precision",
            "f16",
            "--learning-rate",
            "0.2",
        ],
    ]
    .concat();
    let stops = compare(base.path(), &command, &["model.safetensors"]);
    let steps = summary(&base.path().join("supervised-whole"))["steps"]
        .as_u64()
        .unwrap();
    assert!(
        (6..60).contains(&steps),
        "{steps} steps; it was to end early"
    );
    // After each step but the last, and in the middle of the test images.
    assert_eq!(stops as u64, steps - 1 + 1);
    let first = &metrics(&base.path().join("supervised-whole"))[0];
    assert!(first["loss_scale"].as_f64().unwrap() > 1.0);
}

#[test]
fn evaluations_in_pieces() {
    let base = place();
    let folder = base.path();
    let small = ["--steps", "2", "--batch-size", "16", "--width", "0.0625"];
    good(
        folder,
        &on_images(&[&["supervised"], &small[..]].concat(), "trained"),
    );
    let encoder = ["--encoder", "trained/model.safetensors"];

    // In the middle of each split.
    let knn = [&["knn"], &encoder[..]].concat();
    assert_eq!(compare(folder, &knn, &[]), 2);
    // After seven of eight steps, too.
    let linear = [
        &["linear", "--epochs", "1", "--batch-size", "16"],
        &encoder[..],
    ]
    .concat();
    assert_eq!(compare(folder, &linear, &[]), 1 + 7 + 1);

    // In the middle of the images and after each strength but the last.
    let model = ["--model", "trained/model.safetensors", "--iterations", "2"];
    let attack = [&["attack", "--eps", "0,0.01,0.05", "--save"], &model[..]].concat();
    let files = ["attack.svg", "adversarial.safetensors"];
    assert_eq!(compare(folder, &attack, &files), 1 + 3 + 2);
}

/// Each step of an augmented evaluation passes images through the encoder; the state of its layer
/// is kept.
#[test]
fn an_augmented_evaluation_in_pieces() {
    let base = place();
    let folder = base.path();
    let small = ["--steps", "2", "--batch-size", "16", "--width", "0.0625"];
    good(
        folder,
        &on_images(&[&["supervised"], &small[..]].concat(), "trained"),
    );
    let linear = [
        "linear",
        "--augment",
        "--epochs",
        "2",
        "--batch-size",
        "64",
        "--optimizer",
        "sgd",
    ];
    let linear = [&linear[..], &["--encoder", "trained/model.safetensors"]].concat();
    assert_eq!(compare(folder, &linear, &[]), 3 + 1);
}

#[test]
fn features_in_pieces() {
    let base = place();
    let folder = base.path();
    let small = ["--steps", "2", "--batch-size", "16", "--width", "0.0625"];
    good(
        folder,
        &on_images(&[&["supervised"], &small[..]].concat(), "trained"),
    );
    let embed = ["embed", "--encoder", "trained/model.safetensors"];
    good(folder, &on_images(&embed, "whole.safetensors"));
    let words = on_images(&embed, "parts.safetensors");
    assert_eq!(in_pieces(folder, &words), 1);
    let bytes = |name: &str| fs::read(folder.join(name)).unwrap();
    assert!(bytes("parts.safetensors") == bytes("whole.safetensors"));
    let unfinished = folder.join("parts.safetensors.unfinished");
    assert!(!unfinished.exists());
    let said = good(folder, &[&words[..], &["--resume"]].concat());
    assert!(said.contains("nothing is computed"), "{said}");

    // Without a folder, an evaluation stores nothing and prints that.
    let knn = [
        "knn",
        "--encoder",
        "trained/model.safetensors",
        "--device",
        "cpu",
    ];
    let data = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--time-limit",
        AT_ONCE,
    ];
    refused(
        folder,
        &[&knn[..], &data].concat(),
        75,
        &["not stored", "no --out"],
    );
    refused(
        folder,
        &[&knn[..], &data, &["--resume"]].concat(),
        2,
        &["--resume", "--out"],
    );
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let base = place();
    let folder = base.path();
    let command = [
        "supervised",
        "--steps",
        "2",
        "--batch-size",
        "16",
        "--width",
        "0.0625",
    ];
    let words = [&on_images(&command, "run")[..], &["--resume"]].concat();
    let said = good(folder, &words);
    assert!(
        said.contains("no run has begun in run, so one is started"),
        "{said}"
    );
    let said = good(folder, &words);
    assert!(
        said.contains("its results are in run/summary.json"),
        "{said}"
    );
    let other = [&words[..], &["--seed", "1"]].concat();
    refused(folder, &other, 2, &["other settings", "seed: 0, now 1"]);
    refused(folder, &on_images(&command, "run"), 2, &["not empty"]);
    let into_images = [&on_images(&command, "images")[..], &["--resume"]].concat();
    refused(folder, &into_images, 2, &["images", "holds no run"]);
    for limit in ["0", "-1", "soon"] {
        let limit = format!("--time-limit={limit}");
        let words = [&on_images(&command, "new")[..], &[&limit]].concat();
        refused(folder, &words, 2, &["--time-limit", "above 0"]);
    }
    // A folder that the program named is named in the command that continues.
    let unnamed = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--device",
        "cpu",
    ];
    let unnamed = [&command[..], &unnamed, &["--time-limit", AT_ONCE]].concat();
    let run = "runs/supervised-folder-sound-seed0";
    let words = ["after step 1 of 2", &format!("--out {run} --resume")];
    refused(folder, &unnamed, 75, &words);
    let resumed = [&unnamed[..], &["--out", run, "--resume"]].concat();
    refused(
        folder,
        &resumed,
        75,
        &["1 of 2 images", "128 of 140 images"][1..],
    );
    good(folder, &resumed);
}

// The option of `env` that sets signals is that of GNU.
#[cfg(target_os = "linux")]
mod signals {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;

    /// Starts the program through `env`, which sets the signals as `option` says: a test may itself
    /// have been started with ignored signals, by `nohup` or in the background of a script.
    fn start_with(option: &str, folder: &Path, words: &[&str]) -> Child {
        let program = parallax(folder, words);
        let mut command = Command::new("env");
        command.arg(option).arg(program.get_program());
        command.args(program.get_args()).current_dir(folder);
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    fn start(folder: &Path, words: &[&str]) -> Child {
        start_with("--default-signal=HUP,INT,TERM,USR1", folder, words)
    }

    fn wait_until(child: &mut Child, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: waited in vain");
            let ended = child.try_wait().expect("it can be asked");
            assert_eq!(ended, None, "it ended before it could be stopped: {what}");
            sleep(Duration::from_millis(2));
        }
    }

    fn send(child: &Child, signal: &str) {
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn lines(run: &Path) -> usize {
        fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
    }

    /// Stopped by each signal in turn, resumed each time, and no checkpoint but those of the stops.
    #[test]
    fn a_training_is_stopped_by_signals() {
        let base = place();
        let folder = base.path();
        let steps = "60";
        let command = [
            "simclr",
            "--steps",
            steps,
            "--batch-size",
            "16",
            "--width",
            "0.0625",
        ];
        let command = [&command[..], &["--no-knn"]].concat();
        let words = [&on_images(&command, "parts")[..], &["--resume"]].concat();
        let run = folder.join("parts");
        for (signal, name, code) in [
            ("-TERM", "SIGTERM", 143),
            ("-INT", "SIGINT", 130),
            ("-HUP", "SIGHUP", 129),
            ("-USR1", "SIGUSR1", 75),
        ] {
            let mut child = start(folder, &words);
            let before = lines(&run);
            wait_until(&mut child, name, || lines(&run) >= before + 3);
            send(&child, signal);
            let output = child.wait_with_output().unwrap();
            let step = format!("after step {} of {steps}", lines(&run));
            check_refusal(&output, &words, code, &["stopped by", name, &step]);
            assert!(run.join("checkpoint.safetensors").exists());
        }
        let said = good(folder, &words);
        assert!(said.contains("going on after step"), "{said}");
        good(folder, &on_images(&command, "whole"));
        let whole = folder.join("whole");
        assert_eq!(metrics(&run), metrics(&whole));
        assert_eq!(summary(&run), summary(&whole));
        let encoder = |run: &Path| fs::read(run.join("encoder.safetensors")).unwrap();
        assert!(encoder(&run) == encoder(&whole));
    }

    #[test]
    fn an_ignored_signal_stays_ignored() {
        let base = place();
        let folder = base.path();
        let command = [
            "simclr",
            "--steps",
            "20",
            "--batch-size",
            "16",
            "--width",
            "0.0625",
            "--no-knn",
        ];
        let words = on_images(&command, "run");
        let mut child = start_with("--ignore-signal=HUP", folder, &words);
        wait_until(&mut child, "HUP", || lines(&folder.join("run")) >= 3);
        send(&child, "-HUP");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(folder.join("run/summary.json").exists());
    }

    /// The step takes longer than both signals.
    #[test]
    fn a_second_signal_ends_the_process_at_once() {
        let base = TempDir::new().unwrap();
        let folder = base.path();
        let words = [
            "simclr",
            "--batch-size",
            "256",
            "--width",
            "0.5",
            "--device",
            "cpu",
        ];
        let mut child = start(folder, &[&words[..], &["--out", "run"]].concat());
        let config = folder.join("run/config.toml");
        wait_until(&mut child, "the run begins", || config.exists());
        send(&child, "-TERM");
        sleep(Duration::from_millis(100));
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "the first signal waits for the step"
        );
        send(&child, "-INT");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(2), "{:?}", output.status);
        assert_eq!(text(&output.stderr), "");
        assert!(!folder.join("run/checkpoint.safetensors").exists());
    }
}
