//! A training whose blocks are computed again on the way back gives the same bits and holds less.

#[path = "../src/testing/devices.rs"]
mod devices;

use std::sync::Arc;

use parallax::data::{self, DataKind};
use parallax::device::cpu::CpuDevice;
use parallax::device::profile::ProfiledDevice;
use parallax::device::read_f32;
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{SimClr, SimClrSettings};
use parallax::train::Trainer;
use parallax::{Device, Result};

fn trainer(device: &Device, arch: Arch, width: f64, batch_size: usize) -> Result<Trainer<SimClr>> {
    let encoder = ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width,
    };
    let settings = SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0);
    let optimization = settings.optimization;
    let dataset = data::load(DataKind::Shapes, None, 0)?;
    let objective = SimClr::new(device, settings, dataset.pretraining())?;
    Trainer::new(device, objective, optimization)
}

/// The losses of three steps, and every weight, running statistic and moment after them, as bits.
fn bits(device: &Device, arch: Arch, recompute: bool) -> Result<Vec<u32>> {
    let mut trainer = trainer(device, arch, 0.0625, 4)?.recomputing(recompute);
    let mut bits = Vec::new();
    for step in 0..3 {
        let pending = trainer.step(step)?;
        bits.push(trainer.finish(pending)?.to_bits());
    }
    for parameter in trainer.state() {
        let values = read_f32(device, &parameter.value)?;
        bits.extend(values.iter().map(|x| x.to_bits()));
    }
    Ok(bits)
}

#[test]
fn recomputation_changes_no_bit() {
    for arch in [Arch::ResNet18, Arch::ResNet50] {
        for (name, device) in devices::unsliced() {
            let plain = bits(&device, arch, false).expect(name);
            let again = bits(&device, arch, true).expect(name);
            assert!(plain == again, "{arch} on {name}");
        }
    }
}

#[test]
fn recomputation_holds_less() {
    let peak = |recompute: bool| {
        let device: Device = Arc::new(CpuDevice::new());
        let trainer = trainer(&device, Arch::ResNet50, 0.25, 32).expect("it fits");
        let mut trainer = trainer.recomputing(recompute);
        let before = device.memory().current;
        let pending = trainer.step(0).expect("it runs");
        trainer.finish(pending).expect("it is finite");
        (device.memory().peak - before) as f64
    };
    let (plain, again) = (peak(false), peak(true));
    assert!(again < 0.75 * plain, "{again} of {plain} bytes");
}

/// A batch norm's gradient needs no memory of its own: its input is not held any more when its turn comes.
#[test]
fn every_batch_norm_goes_back_in_place() {
    for (arch, batch_norms) in [(Arch::ResNet18, 20), (Arch::ResNet50, 53)] {
        for recompute in [false, true] {
            let profiler = Arc::new(ProfiledDevice::cpu(CpuDevice::new()));
            let device: Device = profiler.clone();
            let trainer = trainer(&device, arch, 0.0625, 4).expect("it fits");
            let mut trainer = trainer.recomputing(recompute);
            profiler.start();
            let pending = trainer.step(0).expect("it runs");
            trainer.finish(pending).expect("it is finite");
            let calls = profiler.stop().expect("there is no GPU").calls;
            let count = |kernel: &str| calls.iter().filter(|call| call.kernel == kernel).count();
            let counts = [
                "batch_norm_training_backward_in_place",
                "batch_norm_training_backward",
            ]
            .map(count);
            assert_eq!(counts, [batch_norms, 0], "{arch}, recompute {recompute}");
        }
    }
}
