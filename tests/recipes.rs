//! The options of a training's recipe: what they change, that a run with them is resumed and repeated
//! to the same bits, and what is refused.

use std::fs;
use std::path::Path;

use process::{good, json, refused};

mod class_folders;
mod process;
use class_folders::place;

const DATA: &str = "--device cpu --data folder --data-dir images --width 0.0625 --batch-size 4";

/// Runs the words of a line.
fn run(base: &Path, line: &str) -> String {
    good(base, &line.split_whitespace().collect::<Vec<_>>())
}

fn refuse(base: &Path, line: &str, words: &[&str]) {
    refused(base, &line.split_whitespace().collect::<Vec<_>>(), 2, words);
}

fn config(base: &Path, run: &str) -> toml::Table {
    let text = fs::read_to_string(base.join(run).join("config.toml")).unwrap();
    text.parse().unwrap()
}

/// The learning rates of the steps.
fn rates(base: &Path, run: &str) -> Vec<f64> {
    let text = fs::read_to_string(base.join(run).join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["learning_rate"].as_f64().unwrap()
    });
    lines.collect()
}

#[test]
fn simclr_with_every_option_is_resumed_and_repeated() {
    let base = place(32, 32);
    let base = base.path();
    let line = format!(
        "simclr {DATA} --no-knn --optimizer lars --schedule cosine --warmup 4 --blur --steps 12 --checkpoint-every 0"
    );
    run(base, &format!("{line} --out whole"));
    let found = config(base, "whole");
    let training = &found["training"];
    assert_eq!(training["optimizer"].as_str(), Some("lars"));
    assert_eq!(
        training["schedule"].as_str(),
        Some("cosine to 12, warm-up 4")
    );
    assert_eq!(
        training["learning_rate"].as_float(),
        Some(0.3 * 4.0 / 256.0)
    );
    assert_eq!(
        found["augmentation"]["blur_probability"].as_float(),
        Some(0.5)
    );
    let steps = rates(base, "whole");
    assert!(
        steps[..4].is_sorted() && steps[4..].is_sorted_by(|a, b| a > b),
        "{steps:?}"
    );
    assert!(steps[11] < 0.1 * steps[4]);
    // A stop after the first step, and the rest.
    let parts = format!("{line} --out parts");
    let words = format!("{parts} --time-limit 0.000001");
    let words: Vec<&str> = words.split_whitespace().collect();
    let stopped = process::parallax(base, &words).output().unwrap();
    assert_eq!(stopped.status.code(), Some(75));
    assert!(rates(base, "parts").len() < 12);
    for (option, key) in [
        ("--blur", "training.blur"),
        ("--schedule cosine", "training.schedule"),
        ("--optimizer lars", "training.optimizer"),
    ] {
        let other = parts.replace(option, "");
        refuse(base, &format!("{other} --resume"), &[key]);
    }
    run(base, &format!("{parts} --resume"));
    run(
        base,
        "simclr --config whole/config.toml --device cpu --out again",
    );
    let bytes = |run: &str| fs::read(base.join(run).join("encoder.safetensors")).unwrap();
    assert!(bytes("parts") == bytes("whole"));
    assert!(bytes("again") == bytes("whole"));
    assert_eq!(config(base, "again"), config(base, "whole"));
    // Without an option, the weights differ.
    for option in [
        "--blur",
        "--optimizer lars",
        "--schedule cosine",
        "--warmup 4",
    ] {
        let out = format!("without{}", option.replace(' ', "-"));
        run(base, &format!("{} --out {out}", line.replace(option, "")));
        assert!(bytes(&out) != bytes("whole"), "{option}");
    }
}

#[test]
fn every_training_takes_the_recipe() {
    let base = place(32, 32);
    let base = base.path();
    for (command, file) in [("rotnet --no-knn", "encoder"), ("supervised", "model")] {
        let name = command.split(' ').next().unwrap();
        let line = format!(
            "{command} {DATA} --optimizer adam --schedule step:2,3x0.5 --stem imagenet --steps 4 --out {name}"
        );
        run(base, &line);
        let found = config(base, name);
        let training = &found["training"];
        assert_eq!(training["optimizer"].as_str(), Some("adam"));
        assert_eq!(training["learning_rate"].as_float(), Some(0.001));
        assert_eq!(found["encoder"]["stem"].as_str(), Some("imagenet"));
        let halves = rates(base, name)
            .iter()
            .map(|rate| rate / 0.001)
            .collect::<Vec<_>>();
        for (found, expected) in halves.iter().zip([1.0, 1.0, 0.5, 0.25]) {
            assert!((found - expected).abs() < 1e-6, "{halves:?}");
        }
        let again = format!("{name}-again");
        run(
            base,
            &format!("{name} --config {name}/config.toml --device cpu --out {again}"),
        );
        let bytes =
            |run: &str| fs::read(base.join(run).join(format!("{file}.safetensors"))).unwrap();
        assert!(bytes(name) == bytes(&again));
        assert!(json(&base.join(name).join("summary.json")).is_object());
    }
}

#[test]
fn the_papers_protocol_takes_its_own_recipe_alone() {
    let base = place(32, 32);
    let base = base.path();
    let paper = format!("simclr {DATA} --protocol paper --init none --out run");
    for option in [
        "--optimizer lars",
        "--optimizer sgd",
        "--schedule cosine",
        "--warmup 3",
        "--blur",
        "--stem imagenet",
    ] {
        let contradicts = format!("{option} contradicts --protocol paper");
        refuse(base, &format!("{paper} {option}"), &[&contradicts]);
    }
    let rotnet = paper.replace("simclr", "rotnet");
    for option in ["--stem cifar", "--optimizer adam"] {
        let contradicts = format!("{option} contradicts --protocol paper");
        refuse(base, &format!("{rotnet} {option}"), &[&contradicts]);
    }
    run(
        base,
        &format!("{paper} --optimizer adam --stem cifar --warmup 0 --print-config"),
    );
    run(
        base,
        &format!("{rotnet} --optimizer sgd --stem imagenet --print-config"),
    );
    let sound = format!("simclr {DATA} --steps 4 --out run");
    refuse(
        base,
        &format!("{sound} --warmup 4"),
        &["warm-up has 4 steps"],
    );
    refuse(base, &format!("{sound} --schedule step"), &["'step'"]);
    refuse(base, &format!("{sound} --schedule step:3,2"), &["rising"]);
    assert!(!base.join("run").exists());
}
