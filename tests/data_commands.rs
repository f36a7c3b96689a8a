//! The commands on data of all shapes: exit codes, messages, notices, and what is recorded.

#[allow(dead_code)]
mod process;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use process::{good, json, parallax, refused, text};

const NETWORK: [&str; 4] = ["--device", "cpu", "--width", "0.0625"];

/// Images of `width` x `height` pixels at `paths` below `dir`. The class, which is the name of the
/// first folder below the split, decides the colour.
fn write(dir: &Path, paths: &[&str], [width, height]: [u32; 2]) {
    for (i, path) in paths.iter().enumerate() {
        let class = path.split('/').rev().nth(1).unwrap_or_default();
        let strong = class.bytes().map(u32::from).sum::<u32>() % 3;
        let image = RgbImage::from_fn(width, height, |x, y| {
            let noise = (x * 37 + y * 91 + i as u32 * 53) % 120;
            let channel = |c: u32| (noise + if c == strong { 120 } else { 0 }) as u8;
            Rgb([0, 1, 2].map(channel))
        });
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    }
}

/// DIR/train and DIR/test with four and two images of each class.
fn write_classes(dir: &Path, classes: &[&str], size: [u32; 2]) {
    for class in classes {
        for (split, count) in [("train", 4), ("test", 2)] {
            let paths: Vec<String> = (0..count)
                .map(|i| format!("{split}/{class}/{i}.png"))
                .collect();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            write(dir, &paths, size);
        }
    }
}

fn words<'a>(command: &'a str, data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words: Vec<&str> = command.split(' ').collect();
    words.extend(["--data", "folder", "--data-dir", data]);
    words.extend(more);
    words
}

/// The words of a training of two steps.
fn training<'a>(command: &'a str, data: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut all = words(command, data, &NETWORK);
    all.extend(["--steps", "2", "--batch-size", "4", "--out", out]);
    all
}

fn config(run: &Path) -> toml::Table {
    fs::read_to_string(run.join("config.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

fn strings(value: &toml::Value) -> Vec<&str> {
    let list = value.as_array().expect("it is a list");
    list.iter().map(|item| item.as_str().unwrap()).collect()
}

/// A folder with an encoder of SimCLR and a classifier of cat and dog.
fn trained() -> TempDir {
    let base = TempDir::new().unwrap();
    write_classes(&base.path().join("pets"), &["cat", "dog"], [16, 16]);
    good(base.path(), &training("simclr --no-knn", "pets", "encoder"));
    good(base.path(), &training("supervised", "pets", "model"));
    base
}

const ENCODER: &str = "--encoder encoder/encoder.safetensors --device cpu";

#[test]
fn damaged_images_end_a_command_or_are_left_out_and_recorded() {
    let base = TempDir::new().unwrap();
    let data = base.path().join("pets");
    write_classes(&data, &["cat", "dog"], [16, 16]);
    let path = data.join("train/cat/1.png");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fs::write(
        data.join("test/dog/1.png"),
        "version https://git-lfs.github.com/spec/v1\n",
    )
    .unwrap();
    fs::write(data.join("train/dog/x.gif"), "GIF89a").unwrap();
    let expected = [
        "pets/train/cat/1.png (ends early",
        "pets/test/dog/1.png (a Git LFS pointer",
        "--on-bad-image skip",
    ];
    for command in ["simclr", "rotnet", "supervised"] {
        refused(base.path(), &training(command, "pets", "run"), 1, &expected);
    }
    assert!(!base.path().join("run").exists(), "nothing was begun");

    let command = training("simclr --on-bad-image skip", "pets", "run");
    let told = good(base.path(), &command);
    assert!(told.contains("notice  2 image files"), "{told}");
    assert!(told.contains("train/cat/1.png, test/dog/1.png"), "{told}");
    assert!(
        told.contains("notice  1 image files of kinds that are not read"),
        "{told}"
    );
    let data = &config(&base.path().join("run"))["data"];
    assert_eq!(data["skipped_images"].as_integer(), Some(2));
    assert_eq!(
        strings(&data["skipped_files"]),
        ["train/cat/1.png", "test/dog/1.png"]
    );
    assert_eq!(data["unread_files"][".gif"].as_integer(), Some(1));
    assert_eq!(data["train_images"].as_integer(), Some(7));
    assert_eq!(data["test_images"].as_integer(), Some(3));
}

#[test]
fn pretraining_needs_no_test_set_and_no_labels() {
    let base = TempDir::new().unwrap();
    let size = [16, 16];
    write(
        &base.path().join("classes"),
        &["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"],
        size,
    );
    write(
        &base.path().join("flat"),
        &["a.png", "b.png", "c.png", "d.png"],
        size,
    );
    write_classes(&base.path().join("one"), &["cat"], size);
    for (data, reason) in [
        ("classes", "classes has no test images"),
        ("flat", "the images of flat have no labels"),
        ("one", "one has one class, cat"),
    ] {
        for command in ["simclr", "rotnet"] {
            let out = format!("{command}-{data}");
            let told = good(base.path(), &training(command, data, &out));
            let notice = format!("notice  no nearest-neighbour evaluation: {reason}");
            assert!(told.contains(&notice), "{told}");
            let run = base.path().join(&out);
            let left_out = &config(&run)["data"]["left_out"];
            assert!(strings(left_out).contains(&"nearest-neighbour accuracy"));
            let without_rotations = command == "rotnet" && data != "one";
            assert_eq!(
                told.contains("no rotation accuracy"),
                without_rotations,
                "{told}"
            );
            let summary = json(&run.join("summary.json"));
            assert!(summary["knn_top1"].is_null() && summary["final_loss"].is_number());
        }
        let told = good(base.path(), &words("preview --out p.png", data, &[]));
        assert!(told.contains("p.png: "), "{told}");
        fs::remove_file(base.path().join("p.png")).unwrap();
    }
}

#[test]
fn other_commands_name_what_is_missing() {
    let base = trained();
    let size = [16, 16];
    write(
        &base.path().join("classes"),
        &["cat/a.png", "dog/a.png"],
        size,
    );
    write(&base.path().join("flat"), &["a.png", "b.png"], size);
    write_classes(&base.path().join("one"), &["cat"], size);
    let commands = [
        "supervised --device cpu --out run".to_string(),
        format!("finetune {ENCODER} --out run"),
        format!("linear {ENCODER} --out run"),
        format!("transfer {ENCODER} --out run"),
        format!("knn {ENCODER}"),
        "attack --model model/model.safetensors --device cpu --out run".to_string(),
    ];
    for command in &commands {
        let name = command.split(' ').next().unwrap();
        let check = |data, expected: &[&str]| {
            refused(base.path(), &words(command, data, &[]), 2, expected);
        };
        check("classes", &["classes has no test images"]);
        check("flat", &["the training images of flat have no labels"]);
        check("one", &["one class, cat", name]);
    }
    assert!(!base.path().join("run").exists());
    // Where there is no test set, embed takes all images.
    for (data, images) in [("classes", 2), ("flat", 2), ("one", 2)] {
        let out = format!("{data}.features");
        let command = format!("embed {ENCODER} --out {out}");
        let told = good(base.path(), &words(&command, data, &[]));
        assert!(told.contains(&format!("{images} features")), "{told}");
    }
}

#[test]
fn size_sets_images_and_views_and_is_recorded() {
    let base = TempDir::new().unwrap();
    let data = base.path().join("pets");
    write_classes(&data, &["cat", "dog"], [20, 16]);
    write(&data, &["train/cat/other.png"], [40, 70]);
    for command in ["simclr", "rotnet", "supervised"] {
        let words = ["16 x 20", "40 x 70", "--size"];
        refused(
            base.path(),
            &training(command, "pets", "run"),
            1,
            &words[1..],
        );
        let sized = format!("{command} --size 12");
        good(base.path(), &training(&sized, "pets", command));
        let config = config(&base.path().join(command));
        assert_eq!(config["data"]["size"].as_integer(), Some(12), "{command}");
        if command == "simclr" {
            assert_eq!(config["augmentation"]["size"].as_integer(), Some(12));
        }
    }
    fs::remove_file(data.join("train/cat/other.png")).unwrap();
    refused(
        base.path(),
        &training("rotnet", "pets", "run"),
        2,
        &["20 x 16", "--size"],
    );
    let told = good(base.path(), &training("simclr --no-knn", "pets", "views"));
    assert!(
        told.contains("views have 32 x 32 pixels and images 20 x 16; --size"),
        "{told}"
    );
}

fn metadata(path: &Path) -> (Vec<u8>, Value) {
    let bytes = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let entries = serde_json::to_value(header.metadata().as_ref().unwrap()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    (file.tensor("features").unwrap().data().to_vec(), entries)
}

#[test]
fn a_resolution_crops_the_centre_of_images_that_are_not_square() {
    let base = trained();
    write_classes(&base.path().join("wide"), &["cat", "dog"], [24, 16]);
    for split in ["train", "test"] {
        for class in ["cat", "dog"] {
            let folder = base.path().join("wide").join(split).join(class);
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let image = image::open(&path).unwrap().crop_imm(4, 0, 16, 16);
                let below = path.strip_prefix(base.path().join("wide")).unwrap();
                let target = base.path().join("cropped").join(below);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                image.save(target).unwrap();
            }
        }
    }
    let embed = |data: &str, more: &str, out: &str| {
        let command = format!("embed {ENCODER} {more} --out {out}");
        good(base.path(), &words(command.trim(), data, &[]));
        metadata(&base.path().join(out)).0
    };
    let wide = embed("wide", "--resolution 16", "a");
    assert_eq!(wide, embed("cropped", "--resolution 16", "b"));
    assert_ne!(
        wide,
        embed("wide", "--split test", "c"),
        "without it, they are seen whole"
    );
    assert_eq!(
        embed("wide", "--size 8", "d"),
        embed("wide", "--resolution 8", "e")
    );

    let knn = |data: &str, out: &str| {
        let command = format!("knn {ENCODER} --resolution 16 --out {out}");
        good(base.path(), &words(&command, data, &[]));
        json(&base.path().join(out).join("summary.json"))["knn_top1"].clone()
    };
    assert_eq!(knn("wide", "knn-wide"), knn("cropped", "knn-cropped"));
    let resolution = &config(&base.path().join("knn-wide"))["resolution"];
    assert_eq!(resolution.as_integer(), Some(16));
    for command in ["linear", "transfer"] {
        let command = format!("{command} {ENCODER} --resolution 16 --out {command}");
        let told = parallax(base.path(), &words(&command, "wide", &[]))
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", text(&told.stderr));
    }
}

#[test]
fn a_class_without_test_images_is_left_out_of_the_measurement() {
    let base = trained();
    let data = base.path().join("farm");
    write_classes(&data, &["ant", "bee", "cow"], [16, 16]);
    fs::remove_dir_all(data.join("test/bee")).unwrap();
    let linear = format!("linear {ENCODER} --out linear");
    let knn = format!("knn {ENCODER} --out knn");
    let runs = [
        ("linear", words(&linear, "farm", &[])),
        ("knn", words(&knn, "farm", &[])),
        ("supervised", training("supervised", "farm", "supervised")),
        ("simclr", training("simclr", "farm", "simclr")),
    ];
    for (run, command) in runs {
        let told = good(base.path(), &command);
        assert!(
            told.contains("notice  the test set has no image of these classes: bee"),
            "{told}"
        );
        let run = base.path().join(run);
        assert_eq!(strings(&config(&run)["data"]["absent_classes"]), ["bee"]);
        let summary = json(&run.join("summary.json"));
        let measured = if summary["metrics"].is_null() {
            &summary
        } else {
            &summary["metrics"]
        };
        assert_eq!(measured["absent_classes"], serde_json::json!(["bee"]));
        if let Some(auc) = measured.get("auc_ovr") {
            assert!((0.0..=1.0).contains(&auc.as_f64().unwrap()));
            assert_eq!(
                measured["classes"],
                serde_json::json!(["ant", "bee", "cow"])
            );
            assert_eq!(measured["confusion"].as_array().unwrap().len(), 3);
        }
    }
    // A classifier of three classes is attacked on the images of those that there are.
    let attack = "attack --model supervised/model.safetensors --eps 0 --device cpu --out attack";
    good(base.path(), &words(attack, "farm", &["--images", "0.5"]));
    let summary = json(&base.path().join("attack/summary.json"));
    assert_eq!(summary["absent_classes"], serde_json::json!(["bee"]));
    assert_eq!(summary["images"], 2);
    // Only one class in the test set: there is an accuracy and no AUC.
    fs::remove_dir_all(data.join("test/cow")).unwrap();
    let linear = format!("linear {ENCODER} --out one");
    let told = good(base.path(), &words(&linear, "farm", &[]));
    assert!(told.contains("AUC not defined"), "{told}");
    assert!(json(&base.path().join("one/summary.json"))["metrics"]["auc_ovo"].is_null());
    let again = good(base.path(), &words(&linear, "farm", &["--resume"]));
    assert!(again.contains("AUC not defined"), "{again}");
}

#[test]
fn classes_are_matched_by_name() {
    let base = trained();
    let model = "--model model/model.safetensors --eps 0 --device cpu";
    let attack = |data: &str, more: &str, out: &str| {
        let command = format!("attack {model} {more} --out {out}");
        let told = good(
            base.path(),
            &words(command.replace("  ", " ").trim(), data, &[]),
        );
        (told, json(&base.path().join(out).join("summary.json")))
    };
    let (_, before) = attack("pets", "", "before");
    assert_eq!(before["classes"], serde_json::json!(["cat", "dog"]));
    let run = config(&base.path().join("before"));
    assert_eq!(strings(&run["classes"]), ["cat", "dog"]);
    let summary = json(&base.path().join("model/summary.json"));
    assert_eq!(
        summary["metrics"]["classes"],
        serde_json::json!(["cat", "dog"])
    );

    // The same images, with cat renamed to zcat.
    for class in ["cat", "dog"] {
        for split in ["train", "test"] {
            let name = if class == "cat" { "zcat" } else { class };
            let target = base.path().join("renamed").join(split).join(name);
            fs::create_dir_all(&target).unwrap();
            for entry in fs::read_dir(base.path().join("pets").join(split).join(class)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let command = format!("attack {model} --out run");
    let expected = ["zcat", "cat", "--match-classes-by order"];
    refused(base.path(), &words(&command, "renamed", &[]), 2, &expected);
    assert!(!base.path().join("run").exists());
    let (_, by_order) = attack("renamed", "--match-classes-by order", "by-order");
    assert_eq!(by_order["images"], before["images"]);

    // A classifier of more classes, on a part of them, whose order is another one.
    write_classes(
        &base.path().join("zoo"),
        &["ape", "cat", "dog", "elk"],
        [16, 16],
    );
    good(base.path(), &training("supervised", "zoo", "zoo-model"));
    let command = "attack --model zoo-model/model.safetensors --eps 0 --device cpu";
    let part = format!("{command} --out part");
    good(base.path(), &words(&part, "pets", &[]));
    let summary = json(&base.path().join("part/summary.json"));
    assert_eq!(summary["images"], 4);
    assert_eq!(summary["absent_classes"], serde_json::json!(["ape", "elk"]));
    let mut pictured = summary["pictured"].as_array().unwrap().iter();
    assert!(pictured.all(|image| image["class"] == "cat" || image["class"] == "dog"));
}

#[test]
fn the_file_of_embed_holds_classes_and_files() {
    let base = trained();
    let data = base.path().join("pets");
    fs::rename(data.join("test"), data.join("val")).unwrap();
    good(
        base.path(),
        &words(&format!("embed {ENCODER} --out features"), "pets", &[]),
    );
    let (_, entries) = metadata(&base.path().join("features"));
    let list =
        |key: &str| -> Value { serde_json::from_str(entries[key].as_str().unwrap()).unwrap() };
    assert_eq!(list("classes"), serde_json::json!(["cat", "dog"]));
    let files = [
        "val/cat/0.png",
        "val/cat/1.png",
        "val/dog/0.png",
        "val/dog/1.png",
    ];
    assert_eq!(list("files"), serde_json::json!(files));
    assert_eq!(entries["test_folder"], "val");
}

#[test]
fn a_fraction_that_leaves_a_class_without_images_is_named_by_its_option() {
    let base = trained();
    for (command, option) in [
        (
            "attack --model model/model.safetensors --device cpu --images 0.01".to_string(),
            "--images 0.01",
        ),
        (format!("linear {ENCODER} --labels 0.01"), "--labels 0.01"),
        (format!("finetune {ENCODER} --labels 0.01"), "--labels 0.01"),
        (
            "supervised --device cpu --labels 0.01".to_string(),
            "--labels 0.01",
        ),
        (
            "rotnet --device cpu --batch-size 4 --rotation-images 0.01".to_string(),
            "--rotation-images 0.01",
        ),
    ] {
        let command = format!("{command} --out run");
        refused(
            base.path(),
            &words(&command, "pets", &[]),
            2,
            &[option, "cat", "dog"],
        );
        assert!(!base.path().join("run").exists(), "{command}");
    }
}

#[test]
fn images_that_are_too_small_are_refused_with_the_smallest_size() {
    let base = trained();
    write_classes(&base.path().join("tiny"), &["cat", "dog"], [1, 1]);
    let words_of = |command: &str| {
        training(command, "tiny", "run")
            .iter()
            .map(|w| w.to_string())
            .collect::<Vec<_>>()
    };
    for command in ["supervised", "rotnet"] {
        let all = words_of(command);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        refused(
            base.path(),
            &all,
            1,
            &["1 x 1 pixels", "from 4 x 4", "--size 4", command],
        );
    }
    good(
        base.path(),
        &training("supervised --size 4", "tiny", "large"),
    );
    good(base.path(), &training("simclr", "tiny", "views"));
    // The paper's stem has no padding.
    let paper = "simclr --protocol paper --init none --no-knn --size 2";
    refused(
        base.path(),
        &training(paper, "tiny", "run"),
        1,
        &["2 x 2 pixels", "from 3 x 3", "simclr"],
    );
}

#[test]
fn a_run_of_an_earlier_version_is_resumed() {
    let base = TempDir::new().unwrap();
    write_classes(&base.path().join("pets"), &["cat", "dog"], [16, 16]);
    fs::write(base.path().join("pets/train/cat/x.gif"), "GIF89a").unwrap();
    let command = training("simclr --size 8", "pets", "run");
    good(base.path(), &command);
    let run = base.path().join("run");
    let mut old = config(&run);
    old.remove("classes");
    let data = old["data"].as_table_mut().unwrap();
    data.retain(|key, _| !["size", "unread_files"].contains(&key));
    fs::write(run.join("config.toml"), toml::to_string(&old).unwrap()).unwrap();
    fs::remove_file(run.join("summary.json")).unwrap();
    let mut again = command.clone();
    again.push("--resume");
    good(base.path(), &again);
    assert!(run.join("summary.json").is_file());
    // Classes of other names are another run.
    fs::write(
        run.join("config.toml"),
        toml::to_string(&config(&run)).unwrap(),
    )
    .unwrap();
    let mut renamed = config(&run);
    renamed.insert(
        "classes".to_string(),
        toml::Value::from(vec!["cat", "wolf"]),
    );
    fs::write(run.join("config.toml"), toml::to_string(&renamed).unwrap()).unwrap();
    refused(base.path(), &again, 2, &["classes", "wolf"]);
}
