//! Safetensors files as weights: header, metadata, names, shapes and types.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parallax::Device;
use parallax::nn::weights::{metadata, save};
use parallax::nn::{Arch, Module, ResNet, ResNetConfig, Stem};
use parallax::runs::onnx;
use parallax::runs::weights_file::WeightsFile;
use parallax_fuzz::{Folder, joined, parts};
use serde_json::{Map, Value, json};

#[derive(Arbitrary, Debug)]
enum Input {
    /// Any bytes.
    Raw(Vec<u8>),
    /// Any header, with as many zeros as values.
    Header(String, u16),
    /// A network's file that is changed.
    Network {
        prefix: String,
        edits: Vec<(u8, Edit)>,
        /// Entries of the program's metadata.
        about: Vec<(Key, String)>,
    },
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Remove,
    Rename(String),
    Type(Type),
    Shape(Vec<u64>),
    Offsets([u64; 2]),
    Other(String),
}

#[derive(Arbitrary, Debug)]
enum Type {
    F16,
    BF16,
    F64,
    I64,
    BOOL,
    U8,
}

#[derive(Arbitrary, Debug)]
enum Key {
    Arch,
    Width,
    Stem,
    Classes,
    ClassNames,
    Step,
    Any(String),
}

static NETWORK: LazyLock<(Map<String, Value>, Vec<u8>)> = LazyLock::new(|| {
    let config = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    };
    let network = ResNet::new(&config, 0, &Device::cpu()).expect("it can be built");
    parts(&save(&network.state(), &BTreeMap::new()).expect("it can be saved"))
});

fn changed(prefix: &str, edits: Vec<(u8, Edit)>, about: Vec<(Key, String)>) -> Vec<u8> {
    let (header, values) = &*NETWORK;
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    let mut tensors: Vec<_> = tensors
        .map(|(name, info)| (format!("{prefix}{name}"), info.clone()))
        .collect();
    for (place, edit) in edits {
        let place = usize::from(place) % tensors.len();
        let (name, info) = &mut tensors[place];
        match edit {
            Edit::Remove => {
                tensors.swap_remove(place);
            }
            Edit::Rename(to) => *name = to,
            Edit::Type(to) => info["dtype"] = json!(format!("{to:?}")),
            Edit::Shape(shape) => info["shape"] = json!(shape),
            Edit::Offsets(ends) => info["data_offsets"] = json!(ends),
            Edit::Other(text) => *info = json!(text),
        }
        if tensors.is_empty() {
            break;
        }
    }
    let mut header: Map<String, Value> = tensors.into_iter().collect();
    if !about.is_empty() {
        let entries = about.into_iter().map(|(key, value)| {
            let key = match key {
                Key::Arch => "arch".to_string(),
                Key::Width => "width".to_string(),
                Key::Stem => "stem".to_string(),
                Key::Classes => "classes".to_string(),
                Key::ClassNames => "class_names".to_string(),
                Key::Step => "step".to_string(),
                Key::Any(key) => key,
            };
            (key, json!(value))
        });
        let known = [
            ("arch", "resnet18"),
            ("width", "0.0625"),
            ("stem", "imagenet"),
            ("command", "simclr"),
            ("protocol", "sound"),
            ("data", "shapes"),
            ("seed", "0"),
            ("step", "1"),
            ("batch_size", "4"),
        ];
        let mut all: Map<String, Value> = known
            .into_iter()
            .map(|(key, value)| (key.to_string(), json!(value)))
            .collect();
        all.extend(entries);
        let entry = json!({"parallax": Value::Object(all).to_string()});
        header.insert("__metadata__".to_string(), entry);
    }
    joined(Value::Object(header).to_string().as_bytes(), values)
}

fuzz_target!(|input: Input| {
    thread_local!(static FOLDER: Folder = Folder::new());
    let bytes = match input {
        Input::Raw(bytes) => bytes,
        Input::Header(header, zeros) => joined(header.as_bytes(), &vec![0; usize::from(zeros)]),
        Input::Network {
            prefix,
            edits,
            about,
        } => changed(&prefix, edits, about),
    };
    drop(metadata(&bytes, Path::new("weights")));
    let path = FOLDER.with(|folder| folder.write("weights", &bytes));
    if let Ok(file) = WeightsFile::read(&path) {
        drop(file.record());
        // A network that is not whole is refused before it is exported.
        if file.record().kept_random.is_empty() {
            drop(onnx::packed(&file));
        }
    }
});
