//! One SimCLR training step of an encoder at full width, as a program that uses the crate would
//! take it. Prints the loss, the time and the peak of the device's memory. Images are drawn, so
//! nothing is downloaded.
//!
//! `cargo run --release --example training_step -- [ARCH] [IMAGES] [cpu|ADAPTER]...`
//!
//! ARCH is resnet18, resnet34 or resnet50; IMAGES is the number per step; ADAPTER is a part of an
//! adapter's name.

use std::time::Instant;

use parallax::data::{self, DataKind};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrSettings};
use parallax::train::Trainer;
use parallax::{Device, Error, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let arch = match arguments.next().as_deref() {
        Some("resnet18") => Arch::ResNet18,
        Some("resnet34") => Arch::ResNet34,
        None | Some("resnet50") => Arch::ResNet50,
        Some(other) => {
            return Err(Error::usage(format!(
                "'{other}' is neither resnet18, resnet34 nor resnet50"
            )));
        }
    };
    let batch_size = match arguments.next() {
        None => 32,
        Some(word) => word
            .parse()
            .map_err(|_| Error::usage(format!("'{word}' is no number of images")))?,
    };
    let mut devices: Vec<String> = arguments.collect();
    if devices.is_empty() {
        devices.push("cpu".to_string());
    }
    let dataset = data::load(DataKind::Shapes, None, 0)?;
    let encoder = ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    for name in devices {
        let device = Device::open(&name)?;
        let settings =
            SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0);
        let optimization = settings.optimization;
        let network = simclr::network(&settings, &device)?;
        let objective = SimClr::new(settings, dataset.pretraining(), &device)?;
        let mut training = Trainer::new(network, optimization, objective)?;
        let before = Instant::now();
        let step = training.step(0)?;
        let loss = training.finish(step)?;
        println!(
            "{}: {arch:?}, {batch_size} images: loss {loss:.6}, {:.1} s, peak {} MiB",
            device.name(),
            before.elapsed().as_secs_f64(),
            device.memory().peak >> 20
        );
    }
    Ok(())
}
