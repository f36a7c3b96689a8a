//! Runs that people can follow: evaluations during a training, TensorBoard's files, the page of a
//! run, comparisons, verification, and longer runs.

mod class_folders;
mod process;

use std::fs;
use std::path::{Path, PathBuf};

use class_folders::place;
use process::{good, json, parallax, refused, text};
use serde_json::Value;

/// A small training with SimCLR.
const SIMCLR: &str = "simclr --width 0.0625 --batch-size 8 --seed 3";
/// The images of [`place`].
const IMAGES: &str = "--device cpu --data folder --data-dir images";

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn run(folder: &Path, line: &str) -> String {
    good(folder, &words(line))
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn page(folder: &Path, name: &str) -> String {
    String::from_utf8(read(folder, name)).expect("a page is UTF-8")
}

/// The lines of a file of metrics, without the time.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("a line is JSON");
        line["seconds"].take();
        line
    });
    lines.collect()
}

fn event_files(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_event_file = |path: &PathBuf| path.to_string_lossy().contains("events.out.tfevents.");
    entries.filter(is_event_file).collect()
}

/// An evaluation changes no bit of a training, and a training that is stopped after each step has
/// the accuracies of one that is not.
#[test]
fn an_evaluation_during_the_training_changes_nothing() {
    for (method, more) in [("simclr", "--batch-size 8"), ("rotnet", "--batch-size 4")] {
        let base = place(32, 32);
        let folder = base.path();
        let line = format!("{method} --width 0.0625 --steps 8 --seed 3 {more} {IMAGES}");
        run(folder, &format!("{line} --no-knn --out plain"));
        let said = run(folder, &format!("{line} --evaluate-every 3 --out followed"));
        let protocol = "(online, k = 1, 16 training and 16 test images)";
        for step in [3, 6] {
            let start = format!("step {step}: k-nearest-neighbour accuracy ");
            let told = said
                .lines()
                .any(|l| l.starts_with(&start) && l.ends_with(protocol));
            assert!(told, "{said}");
        }
        assert!(
            read(folder, "plain/encoder.safetensors")
                == read(folder, "followed/encoder.safetensors"),
            "{method}: the weights differ"
        );
        let whole = metrics(&folder.join("followed"));
        let measured = |line: &Value| line["online_knn_top1"].as_f64();
        let steps = whole.iter().filter(|line| measured(line).is_some());
        let steps: Vec<u64> = steps.map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [3, 6]);
        let without = whole.iter().cloned().map(|mut line| {
            line.as_object_mut().unwrap().remove("online_knn_top1");
            line
        });
        assert_eq!(without.collect::<Vec<_>>(), metrics(&folder.join("plain")));

        // In pieces of one step, of which one ends during an evaluation.
        let parts =
            format!("{line} --evaluate-every 3 --no-knn --out parts --resume --time-limit 0.001");
        let mut stops = 0;
        loop {
            let output = parallax(folder, &words(&parts))
                .output()
                .expect("it starts");
            match output.status.code() {
                Some(0) => break,
                Some(75) => stops += 1,
                _ => panic!("{}", text(&output.stderr)),
            }
        }
        assert!(stops >= 6, "{stops}");
        assert_eq!(metrics(&folder.join("parts")), whole, "{method}");

        let summary = json(&folder.join("followed/summary.json"));
        assert_eq!(summary["online_knn_top1"], whole[5]["online_knn_top1"]);
        let evaluations = &summary["evaluations"];
        let online = &evaluations["online_knn_top1"];
        for (key, value) in [
            ("online", Value::from(true)),
            ("k", 1.into()),
            ("temperature", 0.5.into()),
            ("resolution", 32.into()),
            ("normalization", "cifar10".into()),
            ("train_images", 16.into()),
            ("test_images", 16.into()),
        ] {
            assert_eq!(online[key], value, "{key}");
        }
        assert_eq!(evaluations["knn_top1"]["online"], false);
        let has_rotations = evaluations["rotation_accuracy"].is_object();
        assert_eq!(has_rotations, method == "rotnet");
    }
}

#[test]
fn an_evaluation_during_the_training_needs_labels() {
    let base = place(32, 32);
    let folder = base.path();
    fs::rename(folder.join("images/train/squares"), folder.join("flat")).unwrap();
    let line = "simclr --device cpu --data folder --data-dir flat --batch-size 4 --evaluate-every 2 --out run";
    let told = ["--evaluate-every 2", "have no labels", "leave it out"];
    refused(folder, &words(line), 2, &told);
    assert!(!folder.join("run").exists());
}

/// Every command names how its accuracy was measured.
#[test]
fn accuracies_name_their_protocol() {
    let base = place(32, 32);
    let folder = base.path();
    run(
        folder,
        &format!("{SIMCLR} --steps 2 {IMAGES} --normalize none --out a"),
    );
    for (line, key) in [
        (
            "supervised --width 0.0625 --steps 2 --batch-size 8",
            "metrics",
        ),
        (
            "finetune --encoder a/encoder.safetensors --labels 0.5 --steps 2",
            "metrics",
        ),
        (
            "linear --encoder a/encoder.safetensors --resolution 16 --epochs 1",
            "metrics",
        ),
        (
            "knn --encoder a/encoder.safetensors --k 3 --knn-temperature 0.2",
            "knn_top1",
        ),
        (
            "attack --model supervised/model.safetensors --method fgsm --eps 0",
            "clean_top1",
        ),
    ] {
        let command = words(line)[0];
        run(folder, &format!("{line} {IMAGES} --out {command}"));
        let summary = json(&folder.join(command).join("summary.json"));
        let protocol = &summary["evaluations"][key];
        let side = if command == "linear" { 16 } else { 32 };
        assert_eq!(protocol["resolution"], side, "{command}");
        assert_eq!(protocol["online"], false, "{command}");
        let is_from_scratch = ["supervised", "attack"].contains(&command);
        let normalization = if is_from_scratch { "cifar10" } else { "none" };
        assert_eq!(protocol["normalization"], normalization, "{command}");
        assert_eq!(protocol["test_images"], 16, "{command}");
    }
    let protocol = &json(&folder.join("knn/summary.json"))["evaluations"]["knn_top1"];
    assert_eq!(
        [&protocol["k"], &protocol["temperature"]],
        [&Value::from(3), &Value::from(0.2)]
    );
}

/// scripts/tensorboard_check.py reads such files by TensorBoard itself; here, they are there, and a
/// resumed run has a second one.
#[test]
fn tensorboard_files_are_written_if_they_are_asked_for() {
    let base = match std::env::var_os("PARALLAX_TENSORBOARD_RUNS") {
        Some(path) => {
            class_folders::write_images(&Path::new(&path).join("images"), 32, 32);
            (PathBuf::from(path), None)
        }
        None => {
            let base = place(32, 32);
            (base.path().to_path_buf(), Some(base))
        }
    };
    let folder = base.0.as_path();
    let plain = format!("{SIMCLR} --steps 8 {IMAGES} --no-knn");
    run(folder, &format!("{plain} --out plain"));
    assert!(event_files(&folder.join("plain")).is_empty());
    let line = format!("{SIMCLR} --steps 8 {IMAGES} --tensorboard --evaluate-every 3 --out run");
    let stopped = format!("{line} --time-limit 0.001");
    let output = parallax(folder, &words(&stopped))
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    run(folder, &format!("{line} --resume"));
    let files = event_files(&folder.join("run"));
    assert_eq!(files.len(), 2);
    let all: Vec<u8> = files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect();
    let has = |word: &str| {
        all.windows(word.len())
            .any(|window| window == word.as_bytes())
    };
    for tag in [
        "loss",
        "learning_rate",
        "online_knn_top1",
        "knn_top1",
        "views",
        "nearest neighbours",
    ] {
        assert!(has(tag), "{tag}");
    }
    assert!(
        read(folder, "run/encoder.safetensors") == read(folder, "plain/encoder.safetensors"),
        "the weights differ"
    );
    let rows = |name: &str| page(&folder.join("run"), name).lines().count();
    assert_eq!([rows("tensor.tsv"), rows("metadata.tsv")], [16, 16]);
    let config = page(&folder.join("run"), "projector_config.pbtxt");
    assert!(config.contains("sprite.png"), "{config}");
    assert!(read(folder, "run/sprite.png").starts_with(b"\x89PNG"));

    let line = format!(
        "supervised --width 0.0625 --steps 3 --batch-size 8 {IMAGES} --tensorboard --out s"
    );
    run(folder, &line);
    assert_eq!(event_files(&folder.join("s")).len(), 1);
}

/// Links, scripts and styles of a page are in it.
fn check_page(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains("prefers-color-scheme: dark"));
    let of_others = ["<script", "<link", "src=\"http", "href=\"http", "url("];
    for word in of_others {
        assert!(!page.contains(word), "{word}");
    }
    assert!(!page.contains("NaN"));
}

#[test]
fn a_run_has_a_page() {
    let base = place(32, 32);
    let folder = base.path();
    run(
        folder,
        &format!("{SIMCLR} --steps 8 {IMAGES} --evaluate-every 3 --out run"),
    );
    let written = page(folder, "run/report.html");
    check_page(&written);
    for words in [
        "simclr on images, seed 3",
        "It has ended after 8 steps.",
        "nearest neighbours during the training",
        "k = 1, temperature 0.5, 32 pixels, normalisation cifar10, 16 training images, 16 test images, online",
        ">Loss</text>",
        "by chance, 2.708",
        "Features of 16 test images",
        ">stripes</text>",
        "First filters",
        "parallax simclr --config run/config.toml --out OTHER",
        "SHA-256 of encoder.safetensors",
        "training.batch_size",
    ] {
        assert!(written.contains(words), "{words}");
    }
    // 4 rows of an image and 7 views, 8 of an image and 7 neighbours, and 4 filters.
    assert_eq!(written.matches("<img ").count(), 4 * 8 + 8 * 8 + 4);

    // The page of a run that has one is written again with the same pictures.
    fs::remove_file(folder.join("run/report.html")).unwrap();
    let said = run(folder, "report run --device cpu");
    assert!(said.ends_with("run/report.html\n"), "{said}");
    assert!(page(folder, "run/report.html") == written);

    // Without its images, or of a command without an encoder, a page has no pictures.
    fs::rename(
        folder.join("images/train/squares/0.png"),
        folder.join("0.png"),
    )
    .unwrap();
    let said = run(folder, "report run --out elsewhere --device cpu");
    assert!(said.contains("no pictures: "), "{said}");
    let without = page(folder, "elsewhere/report.html");
    check_page(&without);
    assert!(
        !without.contains("<img ") && without.contains("No pictures: the images have the digest")
    );
    run(
        folder,
        &format!("linear --encoder run/encoder.safetensors --epochs 1 {IMAGES} --out linear"),
    );
    run(folder, "report linear");
    let linear = page(folder, "linear/report.html");
    check_page(&linear);
    assert!(linear.contains("top-1") && !linear.contains("<img "));
    refused(folder, &["report", "images"], 2, &["has no run"]);
}

/// Results do not depend on how a run is followed, so a run may be followed in another way when it is
/// resumed. What it was evaluated by before stays in its files.
#[test]
fn a_resumed_run_may_be_followed_in_another_way() {
    let base = place(32, 32);
    let folder = base.path();
    let line = format!("{SIMCLR} --steps 8 {IMAGES} --no-knn");
    run(folder, &format!("{line} --out plain"));
    let evaluated = |name: &str| -> Vec<u64> {
        let lines = metrics(&folder.join(name)).into_iter();
        let steps = lines.filter(|line| line["online_knn_top1"].is_f64());
        steps.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    for (name, before, after) in [
        ("less", "--evaluate-every 2", ""),
        ("more", "", "--evaluate-every 3"),
        ("other", "--evaluate-every 2", "--evaluate-every 3"),
    ] {
        let begun = format!("{line} {before} --out {name} --resume --time-limit 0.001");
        let path = folder.join(name);
        while !path.join("metrics.jsonl").exists() || metrics(&path).len() < 4 {
            let output = parallax(folder, &words(&begun)).output();
            let output = output.expect("it starts");
            assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
        }
        let taken = metrics(&path).len() as u64;
        let more = "--tensorboard --save-every 3 --keep-checkpoints";
        let resumed = format!("{line} {after} {more} --out {name} --resume");
        run(folder, &resumed);
        assert!(
            read(&path, "encoder.safetensors") == read(folder, "plain/encoder.safetensors"),
            "{name}: the weights differ"
        );
        let every = |option: &str| -> Option<u64> {
            option.split_whitespace().last().map(|n| n.parse().unwrap())
        };
        let is_due = |step: &u64| {
            let option = if *step <= taken { before } else { after };
            every(option).is_some_and(|every| step.is_multiple_of(every))
        };
        let due: Vec<u64> = (1..=8).filter(is_due).collect();
        assert_eq!(evaluated(name), due, "{name}");

        let summary = json(&path.join("summary.json"));
        let last = metrics(&path)[*due.last().unwrap() as usize - 1]["online_knn_top1"].clone();
        assert_eq!(summary["online_knn_top1"], last, "{name}");
        assert_eq!(summary["evaluations"]["online_knn_top1"]["k"], 1, "{name}");
        assert!(path.join("checkpoint-step6.safetensors").exists());
        let [events] = &event_files(&path)[..] else {
            panic!("{name}: expected one file of events");
        };
        let events = fs::read(events).unwrap();
        let tags = |word: &str| {
            let places = events.windows(word.len());
            places.filter(|place| *place == word.as_bytes()).count()
        };
        // Of the steps before the option was given, too.
        assert_eq!(tags("learning_rate"), 8, "{name}");
        assert_eq!(tags("online_knn_top1"), due.len(), "{name}");

        // The configuration is that of the run that ended.
        let config: toml::Table = page(&path, "config.toml").parse().unwrap();
        let recorded = config.get("evaluate_every");
        assert_eq!(
            recorded.and_then(|n| n.as_integer()),
            every(after).map(|n| n as i64)
        );
        assert_eq!(config["training"]["tensorboard"].as_bool(), Some(true));
        assert!(
            config["evaluations"].get("online_knn_top1").is_some(),
            "{name}"
        );
        let before = read(&path, "config.toml");
        let said = run(
            folder,
            &format!("{line} --evaluate-every 5 --out {name} --resume"),
        );
        assert!(said.contains("has ended"), "{said}");
        assert!(read(&path, "config.toml") == before, "{name}");
    }
}

/// Images without labels and without a test set have neighbours too.
#[test]
fn a_run_on_images_without_labels_has_a_page() {
    let base = place(32, 32);
    let folder = base.path();
    let flat = "--data folder --data-dir images/train/squares --device cpu";
    run(folder, &format!("{SIMCLR} {flat} --steps 2 --out run"));
    let written = page(folder, "run/report.html");
    check_page(&written);
    assert!(written.contains("Features of 1 test images"));
    let supervised = "supervised --width 0.0625 --steps 2 --batch-size 8";
    run(folder, &format!("{supervised} {IMAGES} --out s"));
    assert!(page(folder, "s/report.html").contains("SHA-256 of model.safetensors"));
}

#[test]
fn runs_are_compared() {
    let base = place(32, 32);
    let folder = base.path();
    let line = format!("{SIMCLR} --steps 8 {IMAGES}");
    run(folder, &format!("{line} --evaluate-every 4 --out a"));
    run(
        folder,
        &format!("{line} --evaluate-every 4 --temperature 0.2 --out b"),
    );
    let knn = "knn --encoder a/encoder.safetensors";
    run(folder, &format!("{knn} {IMAGES} --k 3 --out k3"));
    let said = run(folder, "compare a b --out both.html");
    let row = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {said}"));
        line[name.len()..]
            .split_whitespace()
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("training.temperature"), ["0.5", "0.2"]);
    assert_eq!(row("steps"), ["8", "8"]);
    assert_eq!(row("final loss").len(), 2);
    assert!(
        !said.contains('*') && !said.contains("training.batch_size"),
        "{said}"
    );
    assert!(said.contains("k = 1, temperature 0.5, 32 pixels"), "{said}");
    let written = page(folder, "both.html");
    check_page(&written);
    assert!(written.matches("<polyline").count() >= 4);
    let again = ["compare", "a", "b", "--out", "both.html"];
    refused(folder, &again, 2, &["both.html", "--force"]);

    // A run without a curve is named, so that the colours are those of the other figures.
    run(folder, "compare a k3 --out k3.html");
    let written = page(folder, "k3.html");
    check_page(&written);
    assert_eq!(written.matches(">k3: no curve</text>").count(), 2);

    // Another k: the accuracies are marked, and how they were measured is printed.
    let said = run(folder, "compare a k3");
    assert!(
        said.contains("* nearest neighbours was measured in different ways:"),
        "{said}"
    );
    assert!(said.contains("  k3: nearest neighbours, k = 3"), "{said}");
    let line = "compare a k3 --json";
    let output = parallax(folder, &words(line)).output().expect("it starts");
    let found: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON");
    assert_eq!(
        found["not_comparable"],
        serde_json::json!(["nearest neighbours"])
    );
    assert_eq!(
        found["runs"][1]["accuracies"]["knn_top1"]["protocol"]["k"],
        3
    );
    assert_eq!(found["runs"][0]["steps"], 8);
    refused(
        folder,
        &["compare", "a", "images"],
        2,
        &["images holds no run"],
    );
}

/// Adds 1 to the last number of the last tensor of a safetensors file. Its header stays.
fn tamper(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 4;
    let number = f32::from_le_bytes(bytes[last..].try_into().unwrap());
    bytes[last..].copy_from_slice(&(number + 1.0).to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_last_steps_of_a_run_are_taken_again() {
    let base = place(32, 32);
    let folder = base.path();
    let line = format!("{SIMCLR} --steps 8 {IMAGES} --no-knn");
    run(folder, &format!("{line} --out run"));
    run(
        folder,
        &format!("{line} --save-every 3 --keep-checkpoints --out kept"),
    );
    let verify = |words: &str| run(folder, &format!("verify --device cpu {words}"));
    let ok = |said: &str, steps: &str| {
        let last = said.lines().last().unwrap_or_default().to_string();
        let start = format!("verify: ok, the losses of {steps} and ");
        assert!(last.starts_with(&start), "{said}");
    };
    // The newest checkpoint is of step 6.
    ok(&verify("kept"), "steps 7 to 8");
    ok(&verify("kept --steps 3"), "steps 4 to 8");
    ok(&verify("run --steps 8"), "steps 1 to 8");
    // A finished run keeps its last state alone, unless it is asked to keep more.
    fn from(line: &str) -> Vec<&str> {
        [&["verify", "--device", "cpu"][..], &words(line)].concat()
    }
    let told = [
        "the last 1 of 8 steps",
        "there is none before the last step",
        "--steps 8",
        "--keep-checkpoints",
    ];
    refused(folder, &from("run"), 2, &told);
    refused(
        folder,
        &from("kept --steps 6"),
        2,
        &["the last 6 of 8 steps", "of the steps 3, 6"],
    );
    refused(
        folder,
        &from("kept --steps 9"),
        2,
        &["--steps is 9", "use 8 or less"],
    );
    refused(folder, &from("images"), 2, &["images holds no run"]);

    // Of the weights, of the state of the optimiser, and of the losses.
    let copy = |to: &str| {
        let to = folder.join(to);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(folder.join("kept")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    };
    let other = copy("state");
    tamper(&other.join("checkpoint.safetensors"));
    let told = [
        "state/checkpoint.safetensors",
        " as element ",
        "after step 8",
    ];
    refused(folder, &from("state"), 1, &told);
    let other = copy("weights");
    fs::remove_file(other.join("checkpoint.safetensors")).unwrap();
    ok(&verify("weights"), "steps 7 to 8");
    tamper(&other.join("encoder.safetensors"));
    refused(
        folder,
        &from("weights"),
        1,
        &["weights/encoder.safetensors", " as element "],
    );
    let other = copy("losses");
    let lines = page(&other, "metrics.jsonl");
    let last = lines.lines().last().unwrap();
    let mut changed: Value = serde_json::from_str(last).unwrap();
    changed["loss"] = 1.0.into();
    fs::write(
        other.join("metrics.jsonl"),
        lines.replace(last, &changed.to_string()),
    )
    .unwrap();
    refused(folder, &from("losses"), 1, &["the loss of step 8 is 1 "]);
    // A checkpoint to start from whose content does not agree with its digest.
    let other = copy("start");
    tamper(&other.join("checkpoint-step6.safetensors"));
    refused(
        folder,
        &from("start"),
        1,
        &[
            "start/checkpoint-step6.safetensors",
            "does not agree with its digest",
        ],
    );
    // Nothing of the run has changed.
    ok(&verify("kept"), "steps 7 to 8");
}

#[test]
fn a_run_that_has_ended_is_extended() {
    let base = place(32, 32);
    let folder = base.path();
    let constant =
        format!("simclr --width 0.0625 --batch-size 8 --seed 3 --evaluate-every 2 {IMAGES}");
    let supervised =
        format!("supervised --width 0.0625 --batch-size 8 --schedule step:2,5 {IMAGES}");
    for (name, line, file) in [
        ("simclr", constant, "encoder.safetensors"),
        ("supervised", supervised, "model.safetensors"),
    ] {
        run(folder, &format!("{line} --steps 7 --out {name}-whole"));
        run(folder, &format!("{line} --steps 4 --out {name}"));
        let said = run(folder, &format!("{line} --steps 7 --out {name} --resume"));
        assert!(
            said.contains("the run of 4 steps is extended to 7"),
            "{said}"
        );
        let [whole, extended] = [format!("{name}-whole"), name.to_string()].map(|n| folder.join(n));
        assert!(
            read(&whole, file) == read(&extended, file),
            "{name}: the weights differ"
        );
        assert_eq!(metrics(&whole), metrics(&extended), "{name}");
        let steps = json(&extended.join("summary.json"))["steps"].clone();
        assert_eq!(steps, 7, "{name}");
        // Asked for the same again, it has ended.
        let said = run(folder, &format!("{line} --steps 7 --out {name} --resume"));
        assert!(said.contains("has ended"), "{said}");
    }
    let again = "simclr --width 0.0625 --batch-size 8 --seed 3 --evaluate-every 2 --device cpu --data folder \
                 --data-dir images --out simclr --resume --steps";
    refused(
        folder,
        &words(&format!("{again} 5")),
        2,
        &["training.steps: 7, now 5"],
    );
    let other = format!("{again} 9 --temperature 0.3");
    refused(
        folder,
        &words(&other),
        2,
        &["training.temperature: 0.5, now 0.3"],
    );
    fs::remove_file(folder.join("simclr/checkpoint.safetensors")).unwrap();
    let told = ["has ended after 7 steps", "no checkpoint.safetensors"];
    refused(folder, &words(&format!("{again} 9")), 2, &told);
    assert!(folder.join("simclr/summary.json").exists());

    let cosine = format!("{SIMCLR} {IMAGES} --no-knn --schedule cosine --warmup 2");
    run(folder, &format!("{cosine} --steps 4 --out cosine"));
    let longer = format!("{cosine} --steps 6 --out cosine --resume");
    let told = [
        "cannot be extended to 6",
        "depends on the number of steps",
        "cosine to 4",
    ];
    refused(folder, &words(&longer), 2, &told);
    assert!(folder.join("cosine/summary.json").exists());
}
