//! `parallax simclr`: pretraining and a nearest-neighbour judgement.

use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::{DataArguments, not_negative, positive, protocol, seed};
use super::device_choice::{DeviceRequest, open};
use crate::data::DataKind;
use crate::error::{Error, Result};
use crate::experiment::run_folder::RunFolder;
use crate::experiment::simclr::{SimClrRequest, run as run_experiment};
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::pretext::Protocol;
use crate::pretext::simclr::SimClrSettings;

/// Pretrain an encoder with SimCLR, then judge it by its nearest neighbours
///
/// Without flags it trains a small ResNet-18 on generated shapes, on the best device there is.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    /// The encoder [default: resnet18]
    #[arg(long, value_name = "resnet18|resnet34|resnet50", default_value = "resnet18", value_parser = arch)]
    arch: Arch,

    /// Multiplies every channel count [default: 0.25 on shapes, else 1]
    #[arg(long)]
    width: Option<f64>,

    /// Images a step; each gives two views [default: 64 on shapes, else 128]
    #[arg(long)]
    batch_size: Option<usize>,

    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long)]
    steps: Option<u64>,

    /// Adam's learning rate
    #[arg(long, default_value = "0.001", value_parser = positive)]
    learning_rate: f32,

    /// L2, added to the gradient (the paper's protocol does not apply it)
    #[arg(long, default_value = "0.000001", value_parser = not_negative)]
    weight_decay: f32,

    /// NT-Xent's temperature
    #[arg(long, default_value = "0.5", value_parser = positive)]
    temperature: f32,

    /// The seed of weights, order and views
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// The run folder, new or empty [default: a new one under runs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Start from the encoder of this safetensors file (torchvision's names), or none
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    /// sound, or the evaluated paper's code point by point
    #[arg(long, value_name = "sound|paper", default_value = "sound", value_parser = protocol)]
    protocol: Protocol,
}

fn arch(word: &str) -> std::result::Result<Arch, String> {
    match word {
        "resnet18" => Ok(Arch::ResNet18),
        "resnet34" => Ok(Arch::ResNet34),
        "resnet50" => Ok(Arch::ResNet50),
        _ => Err("expected resnet18, resnet34 or resnet50".to_string()),
    }
}

fn arch_name(arch: Arch) -> &'static str {
    match arch {
        Arch::ResNet18 => "resnet18",
        Arch::ResNet34 => "resnet34",
        Arch::ResNet50 => "resnet50",
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let on_shapes = arguments.data.data == DataKind::Shapes;
    let steps = arguments
        .steps
        .unwrap_or(if on_shapes { 150 } else { 5000 });
    if steps == 0 {
        return Err(Error::usage("--steps is 0; train for 1 step or more"));
    }
    let init = match (arguments.protocol, arguments.init.as_deref()) {
        (Protocol::Paper, None) => {
            return Err(Error::usage(
                "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
                 from random ones and have every result say so",
            ));
        }
        (_, None | Some("none")) => None,
        (_, Some(file)) => Some(PathBuf::from(file)),
    };
    let encoder = ResNetConfig {
        arch: arguments.arch,
        stem: Stem::Cifar { padding: 1 },
        width: arguments
            .width
            .unwrap_or(if on_shapes { 0.25 } else { 1.0 }),
    };
    // Said before any data is read.
    encoder.shape()?;
    let dataset = arguments.data.load(arguments.seed)?;
    let batch_size = arguments
        .batch_size
        .unwrap_or(if on_shapes { 64 } else { 128 });
    let settings = SimClrSettings {
        learning_rate: f64::from(arguments.learning_rate),
        temperature: arguments.temperature,
        ..SimClrSettings::of_protocol(
            arguments.protocol,
            encoder,
            32,
            batch_size,
            arguments.weight_decay,
            arguments.seed,
        )
    };
    let images = dataset.pretraining().len();
    if batch_size > images {
        return Err(Error::usage(format!(
            "--batch-size {batch_size} is larger than the {images} images of {}",
            dataset.name
        )));
    }
    let chosen = open(&arguments.device)?;
    let folder = match &arguments.out {
        Some(path) => RunFolder::create(path)?,
        None => {
            let name = format!(
                "simclr-{}-{}-seed{}",
                arguments.data.data, arguments.protocol, arguments.seed
            );
            RunFolder::create_next(Path::new("runs"), &name)?
        }
    };
    let shown = folder.path().display().to_string();
    println!("data    {}, {images} images", dataset.name);
    println!("device  {} ({})", chosen.device.name(), chosen.reason);
    println!("run     {shown}");
    let request = SimClrRequest {
        protocol: arguments.protocol,
        settings,
        arch: arch_name(arguments.arch).to_string(),
        steps,
        init,
        dataset,
    };
    let summary = run_experiment(&chosen.device, request, folder)?;
    println!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        summary.final_loss, summary.first_loss, summary.chance_loss
    );
    println!(
        "k-nearest-neighbour accuracy (k = {}): {:.1} %, untrained encoder {:.1} %",
        summary.knn_k,
        100.0 * summary.knn_top1,
        100.0 * summary.knn_top1_untrained
    );
    println!(
        "speed   {:.1} images/s, {:.0} s of training, {:.0} s in all, peak {} MiB",
        summary.images_per_second,
        summary.seconds,
        summary.total_seconds,
        summary.peak_bytes >> 20
    );
    Ok(())
}
