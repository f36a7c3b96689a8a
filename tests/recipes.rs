//! The options of a training's recipe, and the recipes that the program ships: what they change,
//! that a run with them is resumed and repeated to the same bits, and what is refused.

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

/// The recipes that the program ships, with their texts.
fn shipped(base: &Path) -> Vec<(String, String)> {
    let listed = good(base, &["recipes"]);
    let names = listed.lines().map(|line| line.split(' ').next().unwrap());
    let recipes = names.map(|name| (name.to_string(), good(base, &["recipes", name])));
    recipes.collect()
}

/// The settings of a table, with full keys.
fn flat(table: &toml::Table, prefix: &str) -> Vec<(String, toml::Value)> {
    let entries = table.iter().flat_map(|(key, value)| match value {
        toml::Value::Table(inner) => flat(inner, &format!("{prefix}{key}.")),
        value => vec![(format!("{prefix}{key}"), value.clone())],
    });
    entries.collect()
}

#[test]
fn every_recipe_is_a_run_that_has_its_settings() {
    let base = place(32, 32);
    let base = base.path();
    let recipes = shipped(base);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    assert_eq!(recipes.len(), fs::read_dir(folder).unwrap().count());
    for (name, text) in &recipes {
        let recipe: toml::Table = text.parse().unwrap();
        let command = recipe["command"].as_str().unwrap();
        let config = format!("recipe:{name}");
        let printed = good(base, &[command, "--config", &config, "--print-config"]);
        let settings = flat(&printed.parse().unwrap(), "");
        for setting in flat(&recipe, "") {
            assert!(settings.contains(&setting), "{name}: {setting:?}");
        }
        // Only the data's folder has to be given.
        let missing = ["--device", "cpu", "--out", "run"];
        let words = [&[command, "--config", &config], &missing[..]].concat();
        refused(base, &words, 2, &["--data-dir"]);
    }
}

#[test]
fn the_header_of_a_recipe_has_its_figure_and_the_command_that_shows_it() {
    let base = place(32, 32);
    let base = base.path();
    for (name, text) in shipped(base) {
        let header = text.lines().map_while(|line| line.strip_prefix('#'));
        let header: Vec<&str> = header.map(str::trim).collect();
        assert!(header[0].len() <= 72 && header[1].is_empty(), "{name}");
        let field = |wanted: &str| {
            let from = header.iter().position(|line| line.starts_with(wanted));
            from.unwrap_or_else(|| panic!("{name}: the header has no {wanted}"))
        };
        for wanted in ["source:", "protocol:", "figure:", "data:"] {
            field(wanted);
        }
        let figure = header[field("figure:")];
        assert!(figure.contains("not run") || figure.contains('%'), "{name}");
        let lines = header[field("command:")..].join("\n");
        let lines = lines.trim_start_matches("command:").replace("\\\n", " ");
        for line in lines.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["parallax", words @ ..] => {
                    good(base, &[words, &["--print-config"]].concat());
                }
                ["scripts/recipes.sh", recipe, "DIR", ..] => assert_eq!(*recipe, name),
                _ => panic!("{name}: {line} is no command"),
            }
        }
        assert!(lines.contains(&name), "{name}");
    }
}

#[test]
fn a_recipe_that_does_not_exist_is_named() {
    let base = place(32, 32);
    let base = base.path();
    refuse(
        base,
        "simclr --config recipe:simclr-cifar11 --out run",
        &["no recipe is called 'simclr-cifar11'", "simclr-cifar10?"],
    );
    refuse(base, "simclr --config=recipe:xyz", &["parallax recipes"]);
    refuse(base, "recipes xyz", &["parallax recipes"]);
    let rotnet = "rotnet --config recipe:simclr-cifar10 --out run";
    let rotnet: Vec<&str> = rotnet.split_whitespace().collect();
    refused(base, &rotnet, 1, &["recipe:simclr-cifar10", "its command"]);
    // An option replaces a setting of a recipe.
    let line = "simclr --config recipe:simclr-cifar10 --steps 2000 --print-config";
    assert!(run(base, line).contains("steps = 2000"));
    assert!(!base.join("run").exists());
}
