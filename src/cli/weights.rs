//! `parallax weights`: files of weights from and for other programs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::arguments::whole;
use super::output::{self, ForceArguments, Inputs};
use crate::console::{self, note, say};
use crate::device::Device;
use crate::error::{Error, Result, listed};
use crate::nn::weights::COUNTER;
use crate::nn::{ResNetConfig, Stem};
use crate::runs::onnx;
use crate::runs::safetensors_file::{Stored, packed};
use crate::runs::settings::NormalizationSetting;
use crate::runs::weights_file::{WeightsFile, pack};
use crate::runs::whole_file::write_file;

/// Classes of torchvision's networks.
const IMAGENET_CLASSES: usize = 1000;

/// Describe a file of weights, or convert one from or for other programs
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Info(InfoArguments),
    /// Convert a safetensors file of another program to a file of this program, which names its
    /// network
    Import(ImportArguments),
    /// Convert a file to a state dict, which torchvision's network of the same name takes as it is,
    /// or to an ONNX model
    Export(ExportArguments),
}

/// Print the network of a safetensors file, and how its tensors are used
#[derive(Args)]
struct InfoArguments {
    /// The file, of this program or another one
    file: PathBuf,
}

/// A file to read and one to write.
#[derive(Args)]
struct ConversionArguments {
    /// The file, of this program or another one
    file: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    images: NormalizationSetting,

    #[command(flatten)]
    force: ForceArguments,
}

#[derive(Args)]
struct ImportArguments {
    #[command(flatten)]
    files: ConversionArguments,

    /// Padding of a 3 x 3 conv1, which a file of another program does not state [default: 1].
    /// solo-learn's networks for CIFAR have 2
    #[arg(long, value_name = "PIXELS", value_parser = whole::<usize>(0..=2))]
    stem_padding: Option<usize>,
}

#[derive(Args)]
struct ExportArguments {
    #[command(flatten)]
    files: ConversionArguments,

    /// What to write [default: onnx if the name of --out ends in .onnx, otherwise safetensors]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A state dict for torchvision
    Safetensors,
    /// A model from RGB images, with values from 0 to 1, to features, and to logits if the file has
    /// a classifier
    Onnx,
}

impl ConversionArguments {
    /// Reads the file, after a check of the one to write.
    fn read(&self) -> Result<WeightsFile> {
        let inputs = Inputs {
            file: Some(("weights", &self.file)),
            data: None,
        };
        output::check(&self.out, self.force.force, None, &inputs)?;
        let file = WeightsFile::read(&self.file)?;
        let file = file.with_normalization(self.images.normalization)?;
        if file.record().kept_random.is_empty() {
            Ok(file)
        } else {
            Err(Error::data(
                &self.file,
                "its first convolution is missing or of another shape, so that it has no whole network",
            ))
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Info(arguments) => info(&arguments.file),
        Action::Import(arguments) => import(arguments),
        Action::Export(arguments) => export(arguments),
    }
}

fn info(path: &Path) -> Result<()> {
    let file = WeightsFile::read(path)?;
    let ResNetConfig { arch, width, stem } = file.config();
    let (origin, record) = (file.origin(), file.record());
    let features = file.config().shape()?.feature_width;
    console::json(&json!({
        "command": "weights info",
        "file": path,
        "arch": arch.to_string(),
        "width": width,
        "stem": stem.to_string(),
        "features": features,
        "origin": file.is_ours().then(|| origin.to_map()),
        "record": &record,
    }));
    say!(
        "{}: {arch}, width {width}, stem {stem}, {features} features",
        path.display()
    );
    if file.is_ours() {
        say!(
            "  written by {} ({}) on {}, seed {}, after {} steps",
            origin.command,
            origin.protocol,
            origin.data,
            origin.seed,
            origin.step
        );
    }
    if let Some(classes) = origin.classes {
        say!("  classifier {classes} classes");
    }
    match record.normalization {
        Some(normalization) if file.is_ours() => say!("  normalised {normalization}"),
        Some(default) => say!(
            "  normalised not stored in the file: {default} unless --normalize is given (torchvision's weights need imagenet)"
        ),
        None => {}
    }
    if let Some(prefix) = record.init_prefix {
        say!("  prefix     {prefix}");
    }
    if record.init_names.is_some() {
        say!("  names      numbered, as by nn.Sequential");
    }
    if !record.init_types.is_empty() {
        say!("  converted  {} to F32", listed(&record.init_types, ", "));
    }
    let counts = record
        .init_left_out
        .iter()
        .map(|(name, count)| format!("{name} {count}"));
    let counts: Vec<String> = counts.collect();
    if !counts.is_empty() {
        say!("  left out   {}", listed(&counts, ", "));
    }
    if !record.kept_random.is_empty() {
        say!("  random     {}", listed(&record.kept_random, ", "));
    }
    Ok(())
}

fn import(arguments: &ImportArguments) -> Result<()> {
    let ImportArguments {
        files: arguments,
        stem_padding,
    } = arguments;
    let file = arguments.read()?;
    let mut origin = file.origin().clone();
    match (&mut origin.encoder.stem, *stem_padding) {
        (Stem::Cifar { padding }, Some(chosen)) if !file.is_ours() => *padding = chosen,
        (stem, Some(_)) => {
            return Err(Error::usage(format!(
                "--stem-padding is for a file of another program with a 3 x 3 conv1, and {} has the \
                 stem '{stem}'; leave the option out",
                arguments.file.display()
            )));
        }
        (_, None) => {}
    }
    let loaded = file.load(&Device::cpu())?;
    let bytes = pack(&loaded.encoder, loaded.head.as_ref(), &origin)?;
    write_file(&arguments.out, &bytes)?;
    let ResNetConfig { arch, width, .. } = origin.encoder;
    say!("{arch} with width {width} in {}", arguments.out.display());
    Ok(())
}

fn export(ExportArguments { files, format }: &ExportArguments) -> Result<()> {
    let is_onnx = |end: &OsStr| end.eq_ignore_ascii_case("onnx");
    let format = format.unwrap_or(if files.out.extension().is_some_and(is_onnx) {
        Format::Onnx
    } else {
        Format::Safetensors
    });
    if let (Format::Safetensors, Some(asked)) = (format, files.images.normalization) {
        return Err(Error::usage(format!(
            "--normalize {asked} is for an ONNX model, and a state dict has no normalisation; leave the option out, or \
             use --format onnx"
        )));
    }
    let file = files.read()?;
    file.print_notices();
    match format {
        Format::Safetensors => export_state_dict(&file, &files.out),
        Format::Onnx => export_onnx(&file, &files.out),
    }
}

fn export_onnx(file: &WeightsFile, out: &Path) -> Result<()> {
    write_file(out, &onnx::packed(file)?)?;
    let ResNetConfig { arch, width, .. } = file.config();
    let features = file.config().shape()?.feature_width;
    let logits = file.origin().classes;
    let logits = logits.map_or(String::new(), |n| format!(" and {} [N, {n}]", onnx::LOGITS));
    say!(
        "{arch} with width {width} in {}: {} [N, 3, H, W], RGB from 0 to 1, to {} [N, {features}]{logits}",
        out.display(),
        onnx::IMAGES,
        onnx::FEATURES,
    );
    note!(
        "run it with: import onnxruntime; onnxruntime.InferenceSession('{}').run(['{}'], {{'{}': pixels}})",
        out.display(),
        onnx::FEATURES,
        onnx::IMAGES,
    );
    Ok(())
}

/// Writes the names of torchvision's network, with the counters and the classifier that it has.
fn export_state_dict(file: &WeightsFile, out: &Path) -> Result<()> {
    let config = file.config();
    let tensors = file.tensors()?;
    let mut stored = Vec::new();
    let counter = file.origin().step.to_le_bytes();
    for Stored { name, .. } in &tensors {
        if let Some(norm) = name.strip_suffix("running_var") {
            stored.push(Stored {
                name: format!("{norm}{COUNTER}"),
                dtype: "I64",
                shape: Vec::new(),
                bytes: &counter,
            });
        }
    }
    stored.extend(tensors);
    let features = config.shape()?.feature_width;
    let no_classifier = vec![0.0_f32; (features + 1) * IMAGENET_CLASSES];
    let classes = file.origin().classes.unwrap_or(IMAGENET_CLASSES);
    if file.origin().classes.is_none() {
        let (weight, bias) = no_classifier.split_at(features * IMAGENET_CLASSES);
        for (name, shape, values) in [
            ("fc.weight", vec![IMAGENET_CLASSES, features], weight),
            ("fc.bias", vec![IMAGENET_CLASSES], bias),
        ] {
            stored.push(Stored {
                name: name.to_string(),
                dtype: "F32",
                shape,
                bytes: bytemuck::cast_slice(values),
            });
        }
        note!(
            "no classifier of this program is in the file; fc is 0 for torchvision's {IMAGENET_CLASSES} classes"
        );
    }
    let about = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    write_file(out, &packed(&stored, &about)?)?;
    say!("{} tensors in {}", stored.len(), out.display());
    match torchvision(&config, classes) {
        Some(model) => note!(
            "read it with: import safetensors.torch, torch, torchvision; {model}; \
             m.load_state_dict(safetensors.torch.load_file('{}'))",
            out.display()
        ),
        None => note!("torchvision has no network of the width {}", config.width),
    }
    Ok(())
}

/// Returns the Python words that build the network `m` with torchvision. It has networks of the
/// width 1.
fn torchvision(config: &ResNetConfig, classes: usize) -> Option<String> {
    if config.width != 1.0 {
        return None;
    }
    let count = match classes {
        IMAGENET_CLASSES => String::new(),
        classes => format!("num_classes={classes}"),
    };
    let model = format!("m = torchvision.models.{}({count})", config.arch);
    Some(match config.stem {
        Stem::ImageNet => model,
        Stem::Cifar { padding } => format!(
            "{model}; m.conv1 = torch.nn.Conv2d(3, 64, 3, 1, {padding}, bias=False); m.maxpool = torch.nn.Identity()"
        ),
    })
}
