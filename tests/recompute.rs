//! A training that recomputes its blocks in the backward pass gives the same bits and holds less
//! memory.

// This test uses some of the devices.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;

use parallax::autograd::PassOptions;
use parallax::data::{self, DataKind};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::train::Trainer;
use parallax::{Device, Result};

fn trainer(
    device: &Device,
    (arch, width): (Arch, f64),
    batch_size: usize,
    recompute: bool,
) -> Result<Trainer<SimClrNetwork, SimClr>> {
    let encoder = ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width,
    };
    let settings = SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0);
    let optimization = settings.optimization;
    let dataset = data::load(DataKind::Shapes, None, 0)?;
    let network = simclr::network(&settings, device)?;
    let objective = SimClr::new(settings, dataset.pretraining(), device)?;
    Trainer::new(network, optimization, objective)?.with_options(PassOptions {
        recompute,
        ..PassOptions::default()
    })
}

/// The losses of three steps, and every weight, running statistic and moment after them, as bits.
fn bits(device: &Device, arch: Arch, recompute: bool) -> Result<Vec<u32>> {
    let mut trainer = trainer(device, (arch, 0.0625), 4, recompute)?;
    let mut bits = Vec::new();
    for step in 0..3 {
        let pending = trainer.step(step)?;
        bits.push(trainer.finish(pending)?.to_bits());
    }
    for parameter in trainer.state() {
        let values = parameter.value.to_vec::<f32>()?;
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
        let device = Device::cpu();
        let network = (Arch::ResNet50, 0.25);
        let mut trainer = trainer(&device, network, 32, recompute).expect("it fits");
        let before = device.memory().current;
        let pending = trainer.step(0).expect("it runs");
        trainer.finish(pending).expect("it is finite");
        (device.memory().peak - before) as f64
    };
    let (plain, again) = (peak(false), peak(true));
    eprintln!("{again:.0} of {plain:.0} bytes");
    assert!(again < 0.75 * plain, "{again} of {plain} bytes");
}

/// The gradient of a batch norm needs no memory of its own: nothing else holds the input when the
/// backward pass of the batch norm runs.
#[test]
fn the_backward_pass_of_every_batch_norm_is_in_place() {
    for (arch, batch_norms) in [(Arch::ResNet18, 20), (Arch::ResNet50, 53)] {
        for recompute in [false, true] {
            let device = Device::cpu();
            let mut trainer = trainer(&device, (arch, 0.0625), 4, recompute).expect("it fits");
            device.start_recording();
            let pending = trainer.step(0).expect("it runs");
            trainer.finish(pending).expect("it is finite");
            let calls = device.stop_recording().expect("there is no GPU").calls;
            let labels = calls
                .iter()
                .filter(|call| call.name == "batch_norm_backward")
                .map(|call| call.work.label.as_deref());
            let (in_place, apart): (Vec<_>, Vec<_>) =
                labels.partition(|label| *label == Some("in place"));
            let counts = [in_place.len(), apart.len()];
            assert_eq!(counts, [batch_norms, 0], "{arch}, recompute {recompute}");
        }
    }
}
