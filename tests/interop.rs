//! Results for other programs: ONNX models, NumPy arrays, and JSON. `scripts/interop.sh` has the
//! same checks with those programs themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use onnx_rs::ast::{Dimension, Graph, Model};
use safetensors::SafeTensors;
use serde_json::Value;

mod class_folders;
mod onnx_reference;
#[allow(dead_code)]
mod process;
#[allow(dead_code)]
mod state_dicts;
use class_folders::place;
use onnx_reference::{Array, evaluate};
use process::{check_refusal, good, json, parallax, refused, text};
use state_dicts::{StateDict, noise, resnet, resnet18, tensor, write};

const DATA: [&str; 6] = [
    "--data",
    "folder",
    "--data-dir",
    "images",
    "--device",
    "cpu",
];

/// What `embed` prints as it writes `out`.
fn embed(base: &Path, encoder: &str, out: &str) -> String {
    let words = ["embed", "--encoder", encoder, "--out", out];
    good(base, &[&words[..], &DATA].concat())
}

fn features(base: &Path, encoder: &str) -> Vec<f32> {
    let out = format!("{}.features", encoder.replace('/', "-"));
    embed(base, encoder, &out);
    let bytes = fs::read(base.join(out)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    bytemuck::pod_collect_to_vec(file.tensor("features").unwrap().data())
}

/// The test images in the order of the features, with values from 0 to 1.
fn images(base: &Path) -> Array {
    let mut values = Vec::new();
    for class in ["squares", "stripes"] {
        for i in 0..8 {
            let path = base.join(format!("images/test/{class}/{i}.png"));
            let image = image::open(path).unwrap().to_rgb8();
            for channel in 0..3 {
                values.extend(image.pixels().map(|p| f32::from(p[channel]) / 255.0));
            }
        }
    }
    Array {
        shape: vec![16, 3, 32, 32],
        values,
    }
}

/// Batch norms of a trained network differ from those of a new one.
fn with_norms(mut tensors: StateDict) -> StateDict {
    for (name, stored) in &mut tensors {
        let shape = stored.shape.clone();
        let part = name.rsplit('.').next().unwrap();
        let drawn: Vec<f32> = bytemuck::pod_collect_to_vec(&noise(name, &shape).bytes);
        let offset = match part {
            "weight" if shape.len() == 1 => 1.0,
            "running_var" => 2.0,
            "bias" | "running_mean" => 0.0,
            _ => continue,
        };
        let values: Vec<f32> = drawn.iter().map(|x| offset + 0.5 * x).collect();
        *stored = tensor(&shape, &values);
    }
    tensors
}

fn is_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    assert!(largest > 0.0);
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() <= 1e-4 * largest, "{x} and {y}");
    }
}

fn shape_of(graph: &Graph<'_>, name: &str) -> Vec<String> {
    let all = graph.input.iter().chain(&graph.output);
    let value = all.into_iter().find(|value| value.name == name).unwrap();
    let dims = &value.tensor_shape().unwrap().dim;
    let words = dims.iter().map(|dim| match dim.value {
        Dimension::Value(size) => size.to_string(),
        Dimension::Param(name) => name.to_string(),
    });
    words.collect()
}

fn about<'a>(model: &'a Model<'_>) -> BTreeMap<&'a str, &'a str> {
    let entries = model.metadata_props.iter();
    entries.map(|entry| (entry.key, entry.value)).collect()
}

/// Every network and stem gives the features of `embed`, from images that are not normalised.
#[test]
fn an_onnx_model_gives_the_features_of_embed() {
    let base = place(32, 32);
    let base = base.path();
    let mut large = resnet18();
    large.insert("conv1.weight".to_string(), noise("conv1", &[4, 3, 7, 7]));
    let networks = [
        ("resnet18", resnet18()),
        ("imagenet", large),
        ("resnet34", resnet([3, 4, 6, 3], 2, 4)),
        ("resnet50", resnet([3, 4, 6, 3], 3, 4)),
    ];
    for (name, tensors) in networks {
        write(&base.join(name), &with_norms(tensors));
        let file = format!("{name}.onnx");
        let said = good(base, &["weights", "export", name, "--out", &file]);
        assert!(said.contains("RGB from 0 to 1"), "{said}");
        let bytes = fs::read(base.join(file)).unwrap();
        let model = onnx_rs::parse(&bytes).unwrap();
        assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
        let graph = model.graph.as_ref().unwrap();
        assert_eq!(shape_of(graph, "images"), ["batch", "3", "height", "width"]);
        let expected = features(base, name);
        let width = (expected.len() / 16).to_string();
        assert_eq!(shape_of(graph, "features"), ["batch", &width]);
        assert_eq!(graph.output.len(), 1, "there is no classifier");
        let about = about(&model);
        assert!(about["input"].contains("values from 0 to 1"), "{about:?}");
        assert_eq!(about["normalization"], "cifar10");
        let results = evaluate(graph, images(base));
        is_close(&results["features"].values, &expected);
    }
}

/// The model of a classifier has its logits and the names of its classes.
#[test]
fn an_onnx_model_has_the_classifier_of_its_file() {
    let base = place(32, 32);
    let base = base.path();
    let words = ["supervised", "--width", "0.0625", "--batch-size", "4"];
    let more = ["--steps", "3", "--out", "run"];
    good(base, &[&words[..], &more, &DATA].concat());
    let model = "run/model.safetensors";
    // The format decides, whatever the file is called.
    let export = ["weights", "export", model, "--format", "onnx", "--out", "m"];
    let said = good(base, &export);
    assert!(said.contains("logits [N, 2]"), "{said}");
    let bytes = fs::read(base.join("m")).unwrap();
    let exported = onnx_rs::parse(&bytes).unwrap();
    let graph = exported.graph.as_ref().unwrap();
    assert_eq!(shape_of(graph, "logits"), ["batch", "2"]);
    let about = about(&exported);
    assert_eq!(about["class_names"], "[\"squares\",\"stripes\"]");
    assert_eq!(about["stem"], "cifar, padding 1");
    let results = evaluate(graph, images(base));
    is_close(&results["features"].values, &features(base, model));

    let bytes = fs::read(base.join(model)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats =
        |name| -> Vec<f32> { bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data()) };
    let (weight, bias) = (floats("fc.weight"), floats("fc.bias"));
    let logits = results["features"].values.chunks_exact(32).flat_map(|x| {
        let rows = weight.chunks_exact(32).zip(&bias);
        rows.map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b)
            .collect::<Vec<_>>()
    });
    let logits: Vec<f32> = logits.collect();
    is_close(&results["logits"].values, &logits);

    let state_dict = ["--format", "safetensors", "--out", "state.onnx"];
    good(
        base,
        &[&["weights", "export", model], &state_dict[..]].concat(),
    );
    let bytes = fs::read(base.join("state.onnx")).unwrap();
    assert!(SafeTensors::deserialize(&bytes).is_ok());
    let exists = ["weights", "export", model, "--out", "state.onnx"];
    refused(base, &exists, 2, &["exists", "--force"]);
}

/// An array of a NumPy file.
#[derive(Debug, PartialEq)]
struct Numpy {
    dtype: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Numpy {
    fn read(file: &[u8]) -> Self {
        assert_eq!(file[..8], *b"\x93NUMPY\x01\x00");
        let start = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!(start % 64, 0, "values are aligned");
        let header = std::str::from_utf8(&file[10..start]).unwrap();
        let between = |before: &str, after: &str| {
            let rest = header.split_once(before).unwrap().1;
            rest.split_once(after).unwrap().0.to_string()
        };
        assert!(
            header.ends_with(" \n") || header.ends_with("}\n"),
            "{header:?}"
        );
        assert_eq!(between("'fortran_order': ", ","), "False");
        let sizes = between("'shape': (", ")");
        let sizes = sizes.split(',').map(str::trim);
        Numpy {
            dtype: between("'descr': '", "'"),
            shape: sizes.filter_map(|size| size.parse().ok()).collect(),
            bytes: file[start..].to_vec(),
        }
    }

    fn strings(&self) -> Vec<String> {
        let longest: usize = self.dtype.strip_prefix("<U").unwrap().parse().unwrap();
        let chars: Vec<u32> = bytemuck::pod_collect_to_vec(&self.bytes);
        let text = |chars: &[u32]| -> String {
            let chars = chars.iter().take_while(|&&c| c != 0);
            chars.map(|&c| char::from_u32(c).unwrap()).collect()
        };
        chars.chunks_exact(longest).map(text).collect()
    }
}

/// The files of a ZIP archive, by its directory.
fn unzip(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let number = |at: usize, len: usize| {
        let bytes = file[at..at + len].iter().rev();
        bytes.fold(0, |n: usize, &byte| n << 8 | usize::from(byte))
    };
    let end = file.len() - 22;
    assert_eq!(file[end..end + 4], *b"PK\x05\x06");
    let record = number(end - 20 + 8, 8);
    assert_eq!(file[record..record + 4], *b"PK\x06\x06");
    let (count, mut at) = (number(record + 32, 8), number(record + 48, 8));
    assert_eq!(count, number(end + 10, 2));
    let mut found = BTreeMap::new();
    for _ in 0..count {
        assert_eq!(file[at..at + 4], *b"PK\x01\x02");
        let (crc, name_len) = (number(at + 16, 4), number(at + 28, 2));
        let name = &file[at + 46..at + 46 + name_len];
        let extra = at + 46 + name_len + 4;
        let (len, local) = (number(extra, 8), number(extra + 16, 8));
        assert_eq!(file[local..local + 4], *b"PK\x03\x04");
        assert_eq!(&file[local + 30..local + 30 + name_len], name);
        let start = local + 30 + name_len + number(local + 28, 2);
        let content = &file[start..start + len];
        let mut found_crc = flate2::Crc::new();
        found_crc.update(content);
        assert_eq!(found_crc.sum() as usize, crc);
        let name = String::from_utf8(name.to_vec()).unwrap();
        found.insert(name, content.to_vec());
        at = extra + number(at + 30, 2) - 4;
    }
    assert_eq!(at, record, "the directory ends at its end record");
    found
}

/// An array of numbers of another kind, as NumPy writes it.
fn numpy_labels() -> Vec<u8> {
    let header = "{'descr': '<u4', 'fortran_order': False, 'shape': (1,), }";
    let start = b"\x93NUMPY\x01\x00\x76\x00";
    [&start[..], format!("{header:117}\n").as_bytes(), &[0; 4]].concat()
}

#[test]
fn embed_writes_numpy_arrays() {
    let base = place(32, 32);
    let base = base.path();
    // A name outside of ASCII.
    for split in ["train", "test"] {
        let [old, new] =
            ["stripes", "stripés \u{1f993}"].map(|name| base.join("images").join(split).join(name));
        fs::rename(old, new).unwrap();
    }
    write(&base.join("weights"), &resnet18());
    let expected = Numpy {
        dtype: "<f4".to_string(),
        shape: vec![16, 32],
        bytes: bytemuck::cast_slice(&features(base, "weights")).to_vec(),
    };

    embed(base, "weights", "x.NPY");
    let file = fs::read(base.join("x.NPY")).unwrap();
    assert_eq!(Numpy::read(&file), expected);

    embed(base, "weights", "x.npz");
    let file = fs::read(base.join("x.npz")).unwrap();
    let arrays = unzip(&file);
    let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
    let all = ["about", "classes", "features", "files", "labels"];
    assert_eq!(names, all.map(|name| format!("{name}.npy")));
    let array = |name: &str| Numpy::read(&arrays[&format!("{name}.npy")]);
    assert_eq!(array("features"), expected);
    let labels = array("labels");
    assert_eq!((labels.dtype.as_str(), labels.shape), ("<u4", vec![16]));
    let labels: Vec<u32> = bytemuck::pod_collect_to_vec(&labels.bytes);
    assert_eq!(labels, [[0; 8], [1; 8]].concat());
    assert_eq!(array("classes").strings(), ["squares", "stripés \u{1f993}"]);
    let files = array("files");
    assert_eq!(files.shape, [16]);
    assert_eq!(files.strings()[9], "test/stripés \u{1f993}/1.png");
    let about = array("about");
    assert_eq!(about.shape, [0; 0]);
    let about: BTreeMap<String, String> = serde_json::from_str(&about.strings()[0]).unwrap();
    assert_eq!((&*about["arch"], &*about["split"]), ("resnet18", "test"));

    // Equal content gives equal bytes, and a file of features ends a command that resumes.
    embed(base, "weights", "again.npz");
    assert_eq!(fs::read(base.join("again.npz")).unwrap(), file);
    for name in ["x.NPY", "x.npz"] {
        let words = ["embed", "--encoder", "weights", "--resume", "--out", name];
        let said = good(base, &[&words[..], &DATA].concat());
        assert!(said.contains("exists, so nothing is computed"), "{said}");
        let other = name.replace('x', "other");
        // Labels, and another archive.
        for content in [numpy_labels(), b"PK\x03\x04 of something else".to_vec()] {
            fs::write(base.join(&other), content).unwrap();
            let words = ["embed", "--encoder", "weights", "--resume", "--out", &other];
            refused(base, &[&words[..], &DATA].concat(), 2, &["exists"]);
        }
    }
}

/// Without labels, the archive has features and files.
#[test]
fn embed_writes_no_array_of_what_is_not_there() {
    let base = place(32, 32);
    let base = base.path();
    write(&base.join("weights"), &resnet18());
    fs::rename(base.join("images/test/squares"), base.join("flat")).unwrap();
    let words = ["embed", "--encoder", "weights", "--device", "cpu"];
    let data = ["--data", "folder", "--data-dir", "flat", "--out", "x.npz"];
    good(base, &[&words[..], &data].concat());
    let arrays = unzip(&fs::read(base.join("x.npz")).unwrap());
    let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
    assert_eq!(names, ["about.npy", "features.npy", "files.npy"]);
}

/// The objects that a command prints with `--json`: every line of stdout is one. The lines for
/// people are on stderr.
fn objects(base: &Path, words: &[&str]) -> Vec<Value> {
    let output = parallax(base, &[words, &["--json"]].concat()).output();
    let output = output.expect("it starts");
    let lines = text(&output.stderr);
    assert!(output.status.success(), "{words:?}: {lines}");
    assert!(!lines.is_empty(), "{words:?}");
    let objects = text(&output.stdout);
    let object = |line| serde_json::from_str(line).expect("a line is an object");
    objects.lines().map(object).collect()
}

#[test]
fn results_are_lines_of_json() {
    let base = place(32, 32);
    let base = base.path();
    let small = ["--width", "0.0625", "--batch-size", "4", "--steps", "2"];
    // A run prints the content of its summary.
    for command in ["simclr", "rotnet", "supervised"] {
        let words = [&[command, "--out", command], &small[..], &DATA].concat();
        let found = objects(base, &words);
        let summary = json(&base.join(command).join("summary.json"));
        assert_eq!(found, [summary], "{command}");
    }
    let encoder = "simclr/encoder.safetensors";
    let model = "supervised/model.safetensors";
    for words in [
        &["knn", "--encoder", encoder, "--out", "knn"][..],
        &[
            "linear",
            "--encoder",
            encoder,
            "--epochs",
            "1",
            "--out",
            "linear",
        ],
        &[
            "attack", "--model", model, "--eps", "0.1", "--out", "attack",
        ],
        &[
            "finetune",
            "--encoder",
            encoder,
            "--steps",
            "1",
            "--batch-size",
            "4",
            "--out",
            "finetune",
        ],
    ] {
        let found = objects(base, &[words, &DATA].concat());
        let summary = json(&base.join(words[0]).join("summary.json"));
        assert_eq!(found, [summary], "{words:?}");
    }
    let knn = json(&base.join("knn/summary.json"));
    let [found] = &objects(base, &[&["knn", "--encoder", encoder], &DATA[..]].concat())[..] else {
        panic!("one object is printed");
    };
    for key in [
        "command",
        "encoder",
        "data",
        "knn_k",
        "knn_temperature",
        "knn_top1",
    ] {
        assert_eq!(found[key], knn[key], "{key}");
    }

    let found = objects(base, &["weights", "info", model]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["arch"], &found[0]["features"]),
        (&"resnet18".into(), &32.into())
    );
    assert_eq!(found[0]["origin"]["command"], "supervised");
    let embed = ["embed", "--encoder", encoder, "--out", "x.npz"];
    let found = objects(base, &[&embed[..], &DATA].concat());
    assert_eq!(
        (&found[0]["images"], &found[0]["out"]),
        (&16.into(), &"x.npz".into())
    );
    // There may be adapters; the CPU is always the last device.
    let found = objects(base, &["devices"]);
    let cpu = found.last().unwrap();
    assert_eq!(
        (&cpu["name"], &cpu["number"]),
        (&"cpu".into(), &(found.len() - 1).into())
    );

    // An error stays a line on stderr, and --quiet leaves nothing but the object and results.
    let failed = ["knn", "--encoder", "absent", "--json"];
    let words = [&failed[..], &DATA].concat();
    let output = parallax(base, &words).output().unwrap();
    check_refusal(&output, &words, 1, &["absent"]);
    assert!(output.stdout.is_empty());
    let quiet = [
        &["simclr", "--out", "quiet", "--quiet", "--json"],
        &small[..],
        &DATA,
    ]
    .concat();
    let output = parallax(base, &quiet).output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(!text(&output.stderr).contains("step 1/2"));
    // A file on stdout is not mixed with results.
    let words = [
        "embed",
        "--encoder",
        encoder,
        "--out",
        "/dev/stdout",
        "--json",
    ];
    let output = parallax(base, &[&words[..], &DATA].concat())
        .output()
        .unwrap();
    assert!(SafeTensors::deserialize(&output.stdout).is_ok());
}
