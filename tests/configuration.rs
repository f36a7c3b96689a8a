//! Configuration files: a run's own one repeats the run, options replace its settings, and what
//! cannot be used is named.

mod class_folders;
mod process;

use std::fs;
use std::path::Path;

use class_folders::place;
use process::{good, json, refused};
use serde_json::Value;
use toml::Table;

/// Runs the words of a line, with further words.
fn run(folder: &Path, line: &str, more: &[&str]) -> String {
    good(folder, &[&words(line)[..], more].concat())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

const SIMCLR: &str = "simclr --device cpu --data folder --data-dir images --width 0.0625 --batch-size 4 --steps 3 \
                      --temperature 0.3 --micro-batch 2 --save-every 2";

/// A summary without what differs between two runs of the same settings.
fn results(path: &Path) -> Value {
    let mut summary = json(&path.join("summary.json"));
    let entries = summary.as_object_mut().unwrap();
    entries.retain(|key, _| !key.contains("second") && !key.contains("peak"));
    summary
}

fn config(run: &Path) -> Table {
    let text = fs::read_to_string(run.join("config.toml")).unwrap();
    text.parse().unwrap()
}

/// Every command, by the configuration of its run folder: the same files, bit by bit.
#[test]
fn a_configuration_of_a_run_repeats_it() {
    let base = place(32, 32);
    let folder = base.path();
    let data = "--device cpu --data folder --data-dir images";
    let rotnet =
        "rotnet --width 0.0625 --batch-size 4 --steps 3 --rotation-images 0.5 --no-knn --seed 5";
    let finetune =
        "finetune --encoder simclr/encoder.safetensors --labels 0.5 --epochs 3 --batch-size 64";
    let supervised = "supervised --width 0.0625 --batch-size 4 --steps 4 --stop-when-flat 1 --weight-decay 0.001";
    let linear =
        "linear --encoder simclr/encoder.safetensors --optimizer sgd --epochs 2 --labels 0.5";
    let untrained = "linear --untrained --arch resnet18 --width 0.0625 --epochs 1 --resolution 16";
    let attack = "attack --model finetune/model.safetensors --eps 0,2/255 --iterations 2 --images 0.5 --save";
    let paper =
        "simclr --width 0.0625 --batch-size 4 --steps 2 --protocol paper --init none --no-knn";
    let knn =
        "knn --encoder simclr/encoder.safetensors --k 3 --knn-temperature 0.2 --resolution 16";
    let encoder = ["encoder.safetensors"].as_slice();
    let model = ["model.safetensors"].as_slice();
    for (name, line, files) in [
        (
            "simclr",
            SIMCLR,
            &["encoder.safetensors", "encoder-step2.safetensors"][..],
        ),
        ("rotnet", rotnet, encoder),
        ("finetune", finetune, model),
        ("supervised", supervised, model),
        ("linear", linear, &[]),
        ("untrained", untrained, &[]),
        ("attack", attack, &["adversarial.safetensors"]),
        ("paper", paper, encoder),
        ("knn", knn, &[]),
    ] {
        let line = match name {
            "simclr" => line.to_string(),
            _ => format!("{line} {data}"),
        };
        run(folder, &line, &["--out", name]);
        let command = words(&line)[0];
        let (file, again) = (format!("{name}/config.toml"), format!("{name}-again"));
        run(
            folder,
            command,
            &["--config", &file, "--device", "cpu", "--out", &again],
        );
        for file in files {
            let read = |run: &str| fs::read(folder.join(run).join(file)).unwrap();
            assert!(read(name) == read(&again), "{name}: {file} differs");
        }
        let (first, second) = (folder.join(name), folder.join(&again));
        assert_eq!(results(&first), results(&second), "{name}");
        assert_eq!(config(&first), config(&second), "{name}");
    }
}

#[test]
fn options_replace_settings_of_the_file() {
    let base = place(32, 32);
    let folder = base.path();
    let printed = |line: &str| -> Table { run(folder, line, &["--print-config"]).parse().unwrap() };
    fs::write(
        folder.join("a.toml"),
        "command = \"supervised\"\nseed = 3\n[data]\nkind = \"cifar10\"\ndir = \"nowhere\"\n[training]\nsteps = 7\n\
         recompute = true\nlabels = 0.5\n",
    )
    .unwrap();
    let found = printed("supervised --config a.toml --labels 0.1");
    assert_eq!(found["seed"].as_integer(), Some(3));
    assert_eq!(
        found["data"]["dir"].as_str(),
        Some("nowhere"),
        "no data is read"
    );
    let training = &found["training"];
    assert_eq!(training["labels"].as_float(), Some(0.1));
    assert_eq!(training["recompute"].as_bool(), Some(true));
    assert_eq!(training["steps"].as_integer(), Some(7));
    assert!(training.get("epochs").is_none());
    // A default that depends on the data is that of the file's data.
    assert_eq!(found["encoder"]["width"].as_float(), Some(1.0));
    // An option replaces a setting that it excludes.
    let found = printed("supervised --epochs=2 --config=a.toml");
    assert_eq!(found["training"]["epochs"].as_integer(), Some(2));
    assert!(found["training"].get("steps").is_none());
    // What is printed is a configuration.
    for line in [
        "simclr --data cifar10 --batch-size 32",
        "rotnet --precision f16",
        "finetune --encoder x --labels 0.05",
        "linear --untrained --optimizer sgd",
        "transfer --encoder x",
        "attack --model x --protocol paper",
        "knn --encoder x --k 7",
    ] {
        let text = run(folder, line, &["--print-config"]);
        fs::write(folder.join("b.toml"), &text).unwrap();
        let again = run(
            folder,
            words(line)[0],
            &["--config", "b.toml", "--print-config"],
        );
        assert_eq!(again, text);
    }
    assert!(!folder.join("runs").exists());
    // A list is a value of --eps.
    fs::write(
        folder.join("c.toml"),
        "[attack]\neps = [0, 0.25, \"8/255\"]\n",
    )
    .unwrap();
    let found = printed("attack --model x --config c.toml");
    assert_eq!(found["attack"]["eps"].as_str(), Some("0,0.25,8/255"));
}

#[test]
fn what_cannot_be_used_is_named() {
    let base = place(32, 32);
    let folder = base.path();
    for (text, code, expected) in [
        (
            "batch_size = 3\n",
            1,
            &["no setting batch_size", "did you mean training.batch_size?"][..],
        ),
        (
            "[training]\nbatch_sise = 3\n",
            1,
            &["training.batch_sise", "did you mean training.batch_size?"],
        ),
        (
            "[training]\nmomentum = 3\n",
            1,
            &["training.momentum", "simclr --print-config"],
        ),
        ("out = \"x\"\n", 1, &["no setting out"]),
        (
            "command = \"rotnet\"\n",
            1,
            &["its command is \"rotnet\"", "configuration of simclr"],
        ),
        (
            "[training]\nbatch_size = 0\n",
            2,
            &["a.toml: training.batch_size: ", "'0'", "1 or more"],
        ),
        (
            "[training]\nsteps = 1.5\n",
            2,
            &["a.toml: training.steps: ", "'1.5'"],
        ),
        (
            "[training]\nrecompute = 2\n",
            2,
            &["a.toml: training.recompute: "],
        ),
        (
            "[data]\nkind = \"mnist\"\n",
            2,
            &["a.toml: data.kind: ", "mnist", "cifar10"],
        ),
        (
            "seed = \n",
            1,
            &["a.toml", "not a configuration file", "line 1"],
        ),
        (
            "[training]\nsteps = 2\nbatch_size = 1\n",
            2,
            &["batch size is 1"],
        ),
    ] {
        fs::write(folder.join("a.toml"), text).unwrap();
        refused(
            folder,
            &["simclr", "--config", "a.toml", "--out", "run"],
            code,
            expected,
        );
        assert!(!folder.join("run").exists());
    }
    refused(
        folder,
        &["simclr", "--config", "none.toml"],
        1,
        &["none.toml"],
    );
    refused(folder, &["simclr", "--config"], 2, &["--config"]);
    refused(folder, &["devices", "--config", "a.toml"], 2, &["--config"]);
    let knn = ["knn", "--encoder", "x", "--protocol", "paper"];
    refused(folder, &knn, 2, &["--protocol"]);
    // Earlier versions did not record every setting of a run.
    let old = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/results/grid-small/jobs/linear-simclr-resnet50-b128-500-s0/config.toml");
    let old = old.to_str().unwrap();
    refused(
        folder,
        &["linear", "--config", old],
        1,
        &["another version", "training.labels"],
    );
}
