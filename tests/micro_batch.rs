//! A batch in chunks: the gradients of the whole batch where an image passes the network on its own, the same views in
//! both passes, running statistics once a step, and the memory of a chunk.
//!
//! That such a run resumes to the bit is told in `resume.rs`, what its memory is estimated as in `memory.rs`.

use std::sync::Arc;

use parallax::augment::PaddedCropAugmentation;
use parallax::autograd::{self, Gradients, Tape};
use parallax::data::{self, DataKind, Dataset, EpochSampler};
use parallax::device::cpu::CpuDevice;
use parallax::device::kernels::HostSlice;
use parallax::device::{read_f32, upload_f32};
use parallax::evaluate::classifier::{Classifier, ClassifierSettings};
use parallax::nn::{Arch, Mode, Parameter, ResNet, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::rotnet::{RotNet, RotNetSettings};
use parallax::objectives::simclr::{SimClr, SimClrSettings};
use parallax::optim::{Optimization, OptimizerOptions, Schedule};
use parallax::train::{Objective, Tapes, Trainer, micro_batch, whole_batch};
use parallax::{Device, Error, Tensor};
use proptest::prelude::*;

#[path = "../src/testing/devices.rs"]
mod devices;
// The float64 loops of every kernel, of which three are needed here.
#[allow(dead_code)]
mod reference;

const BATCH: usize = 8;
/// What the order of f32 sums may change of a gradient, relative to its norm.
const ROUNDING: f64 = 1e-5;

fn shapes() -> Dataset {
    data::load(DataKind::Shapes, None, 0).expect("shapes are drawn")
}

fn encoder() -> ResNetConfig {
    ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    }
}

fn settings(protocol: Protocol, micro_batch: Option<usize>) -> SimClrSettings {
    SimClrSettings {
        micro_batch,
        ..SimClrSettings::of_protocol(protocol, encoder(), 32, BATCH, 1e-6, 5)
    }
}

fn simclr(device: &Device, settings: SimClrSettings) -> Trainer<SimClr> {
    let optimization = settings.optimization;
    let objective =
        SimClr::new(device, settings, shapes().pretraining()).expect("the settings fit");
    Trainer::new(device, objective, optimization).expect("memory suffices")
}

fn take_step<O: Objective>(trainer: &mut Trainer<O>, step: u64) -> f32 {
    let pending = trainer.step(step).expect("it is recorded");
    trainer.finish(pending).expect("it is finite")
}

fn bits(device: &Device, parameters: &[&Parameter]) -> Vec<Vec<u32>> {
    parameters
        .iter()
        .map(|p| bits_of(device, &p.value))
        .collect()
}

fn bits_of(device: &Device, x: &Tensor) -> Vec<u32> {
    let values = read_f32(device, x).expect("it is a float tensor");
    values.iter().map(|x| x.to_bits()).collect()
}

/// The loss, and the gradient of each parameter with its name.
type Found = (f64, Vec<(String, Vec<f32>)>);

fn read(
    device: &Device,
    parameters: &[&Parameter],
    (loss, gradients): (Tensor, Gradients),
) -> Found {
    let values = parameters
        .iter()
        .map(|p| {
            let gradient = gradients.of(&p.value).expect("every parameter has one");
            let values = read_f32(device, gradient).expect("floats");
            (p.name.clone(), values)
        })
        .collect();
    let loss = read_f32(device, &loss).expect("one number")[0];
    (f64::from(loss), values)
}

/// The largest distance of a gradient from that of the whole batch, relative to its norm.
fn distance(whole: &Found, parts: &Found) -> (f64, String) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    whole
        .1
        .iter()
        .zip(&parts.1)
        .map(|((name, a), (_, b))| {
            let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            let length = norm(&mut a.iter().map(|&a| f64::from(a)));
            assert!(length > 0.0, "{name} has a gradient of zeros");
            (apart / length, name.clone())
        })
        .fold((0.0, String::new()), |a, b| if b.0 > a.0 { b } else { a })
}

fn near(what: &str, whole: &Found, parts: &Found) {
    let (apart, name) = distance(whole, parts);
    eprintln!("{what}: gradients within {apart:.1e}, most of {name}");
    assert!(apart < ROUNDING, "{what}: {name} differs by {apart}");
    let losses = (whole.0 - parts.0).abs() / whole.0;
    assert!(
        losses < 1e-6,
        "{what}: the loss is {}, not {}",
        parts.0,
        whole.0
    );
}

#[test]
fn gradients_are_those_of_the_whole_batch_in_evaluation_mode() {
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        for protocol in [Protocol::Sound, Protocol::Paper] {
            let mut trainer = simclr(&device, settings(protocol, None));
            // Running statistics of a network that is under way.
            for step in 0..3 {
                take_step(&mut trainer, step);
            }
            let tapes = Tapes::new(&device);
            let objective = &mut trainer.objective;
            objective.mode = Mode::Evaluation;
            let found = objective.gradients(&tapes, 7).expect("it is computed");
            let whole = read(&device, &objective.parameters(), found);
            for images in [1, 2, 3, 5, 7, BATCH] {
                let found = objective.cached_gradients(&tapes, 7, images);
                let found = found.expect("it is computed");
                let parts = read(&device, &objective.parameters(), found);
                near(&format!("{name}, {protocol}, {images}"), &whole, &parts);
            }
            // The guard against a test that compares nothing.
            let found = objective.gradients(&tapes, 8).expect("it is computed");
            let other = read(&device, &objective.parameters(), found);
            assert!(distance(&whole, &other).0 > 0.1);
        }
    }
}

#[test]
fn gradients_of_means_are_those_of_the_whole_batch_in_evaluation_mode() {
    let device = devices::cpu();
    let dataset = shapes();
    let tapes = Tapes::new(&device);

    let rotnet = |images| {
        let settings = RotNetSettings {
            micro_batch: images,
            ..RotNetSettings::of_protocol(Protocol::Sound, encoder(), BATCH, 5e-4, 3)
        };
        let mut objective =
            RotNet::new(&device, settings, dataset.pretraining()).expect("the settings fit");
        objective.mode = Mode::Evaluation;
        let found = objective.gradients(&tapes, 2).expect("it is computed");
        read(&device, &objective.parameters(), found)
    };
    let whole = rotnet(None);
    for images in [1, 3, 4] {
        near(&format!("RotNet, {images}"), &whole, &rotnet(Some(images)));
    }

    let classifier = |images| {
        let settings = ClassifierSettings {
            batch_size: BATCH,
            micro_batch: images,
            optimization: Optimization {
                optimizer: OptimizerOptions::nesterov(0.0),
                learning_rate: 0.01,
                schedule: Schedule::Constant,
            },
            augmentation: PaddedCropAugmentation::default(),
            frozen_after_first_epoch: true,
            seed: 4,
        };
        let network = ResNet::new(&device, &encoder(), 1).expect("it can be");
        let members = (0..2 * BATCH as u32).collect();
        let mut objective =
            Classifier::new(&device, settings, network, 10, &dataset.train, members)
                .expect("the settings fit");
        // The second epoch's, in which batch norm is frozen.
        let found = objective.gradients(&tapes, 3).expect("it is computed");
        read(&device, &objective.parameters(), found)
    };
    let whole = classifier(None);
    for images in [1, 3, 4] {
        near(
            &format!("classifier, {images}"),
            &whole,
            &classifier(Some(images)),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A linear network, whose loss and gradients float64 loops tell: rows, chunks, widths and temperatures of any
    /// kind.
    #[test]
    fn a_linear_network_has_the_gradients_of_float64(
        images in 1usize..12,
        cut in 1usize..13,
        inputs in 1usize..6,
        width in 2usize..6,
        temperature in 0.1f32..2.0,
        seed in 0u32..1000,
    ) {
        let device = devices::cpu();
        let micro_batch = cut.min(images);
        let number = |i: usize, salt: u32| {
            let mixed = (i as u32 + 1).wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503) ^ salt;
            (mixed.wrapping_mul(2_246_822_519) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let x: Vec<f32> = (0..2 * images * inputs).map(|i| number(i, 17)).collect();
        let w: Vec<f32> = (0..width * inputs).map(|i| number(i, 9001)).collect();
        let bias = vec![0.1; width];
        let [w_there, bias_there] = [(&w, vec![width, inputs]), (&bias, vec![width])]
            .map(|(values, shape)| upload_f32(&device, values, &shape).expect("it fits"));
        let network = ResNet::new(&device, &encoder(), 0).expect("it can be");
        let (loss, gradients) = micro_batch::cached(
            &Tapes::new(&device),
            &network,
            images,
            micro_batch,
            |tape, chunk| {
                let rows = [0, images].map(|view| &x[(view + chunk.start) * inputs..(view + chunk.end) * inputs]);
                let x = upload_f32(&device, &rows.concat(), &[2 * chunk.len(), inputs])?;
                autograd::linear(tape, &tape.constant(&x), &tape.leaf(&w_there), &tape.leaf(&bias_there))
            },
            |tape, z| {
                let z = autograd::l2_normalize(tape, z, 1e-12)?;
                autograd::nt_xent(tape, &z, temperature)
            },
        ).expect("it is computed");

        let [x, w, bias] = [&x, &w, &bias].map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        let z = reference::gemm::linear([2 * images, inputs, width], &x, &w, &bias).value;
        let (y, norm) = reference::l2_normalize::l2_normalize(width, &z, 1e-12);
        let t = f64::from(temperature);
        let (expected, lse) = reference::nt_xent::nt_xent(width, &y.value, t);
        let dy = reference::nt_xent::nt_xent_backward(width, 1.0, &y.value, t, &lse.value).value;
        let dz = reference::l2_normalize::l2_normalize_backward(width, &dy, &y.value, &norm.value, 1e-12).value;
        let loss = f64::from(read_f32(&device, &loss).expect("one number")[0]);
        prop_assert!((loss - expected.value[0]).abs() < 1e-5 * (1.0 + 2.0 / t), "{loss}, not {}", expected.value[0]);
        let dw = read_f32(&device, gradients.of(&w_there).expect("it has one")).expect("floats");
        for (at, &found) in dw.iter().enumerate() {
            let (o, i) = (at / inputs, at % inputs);
            let rows = 0..2 * images;
            let exact: f64 = rows.clone().map(|n| dz[n * width + o] * x[n * inputs + i]).sum();
            // A row's dz is at most 4 / (2N temperature |z|); roundings are in proportion to that.
            let most: f64 = rows
                .map(|n| 4.0 / (2.0 * images as f64 * t * norm.value[n]) * x[n * inputs + i].abs())
                .sum();
            prop_assert!((f64::from(found) - exact).abs() <= 1e-5 * (1.0 + 1.0 / t) * most, "dw[{o}, {i}]: {found}, not {exact}");
        }
    }
}

/// One chunk is the whole batch, in training mode too: the second pass has the views of the first, to the bit, else the
/// gradients would not be those of one pass.
#[test]
fn one_chunk_is_a_step_without_chunks_to_the_bit() {
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        for protocol in [Protocol::Sound, Protocol::Paper] {
            let mut trainer = simclr(&device, settings(protocol, None));
            take_step(&mut trainer, 0);
            let tapes = Tapes::new(&device);
            let objective = &mut trainer.objective;
            let whole = whole_batch(objective, &tapes, 1).expect("it is computed");
            objective.encoder.discard_running_statistics();
            let parts = objective.cached_gradients(&tapes, 1, BATCH);
            let parts = parts.expect("it is computed");
            let parameters = objective.parameters();
            let (whole, parts) = (
                read(&device, &parameters, whole),
                read(&device, &parameters, parts),
            );
            assert!(whole == parts, "{name}, {protocol}");
        }
    }
    // The flag itself, over some steps.
    let device = devices::cpu();
    let mut without = simclr(&device, settings(Protocol::Sound, None));
    let mut with = simclr(&device, settings(Protocol::Sound, Some(BATCH)));
    for step in 0..4 {
        let losses = [&mut without, &mut with].map(|trainer| take_step(trainer, step).to_bits());
        assert_eq!(losses[0], losses[1], "step {step}");
    }
    assert!(bits(&device, &without.state()) == bits(&device, &with.state()));
}

#[test]
fn a_chunk_has_the_views_of_the_whole_batch() {
    let device = devices::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let mut trainer = simclr(&device, settings(protocol, None));
        let objective = &mut trainer.objective;
        let whole = objective.views(3).expect("views are drawn");
        let samples = EpochSampler::new(shapes().pretraining().len(), BATCH, 5)
            .expect("they suffice")
            .batch(3);
        for chunk in micro_batch::chunks(BATCH, 3) {
            let views = objective.views_of(&samples[chunk.clone()], 3);
            for (whole, part) in whole.iter().zip(views.expect("views are drawn")) {
                let rows = device.slice(whole, chunk.start, chunk.len());
                assert!(
                    bits_of(&device, &rows.expect("they are there")) == bits_of(&device, &part),
                    "{protocol}, {chunk:?}"
                );
            }
        }
    }
}

/// Each chunk's statistics once, in the order of the chunks.
#[test]
fn running_statistics_are_committed_once_a_step() {
    let device = devices::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let mut trainer = simclr(&device, settings(protocol, Some(3)));
        take_step(&mut trainer, 0);
        let committed = bits(&device, &trainer.objective.encoder.buffers());
        // Nothing is left for the next step.
        let commit = |encoder: &ResNet| encoder.commit_running_statistics(None);
        commit(&trainer.objective.encoder).expect("nothing is committed");
        assert!(committed == bits(&device, &trainer.objective.encoder.buffers()));

        let untrained = simclr(&device, settings(protocol, None)).objective;
        let samples = EpochSampler::new(shapes().pretraining().len(), BATCH, 5)
            .expect("they suffice")
            .batch(0);
        let tape = Tape::inference(&device);
        for chunk in [0..3, 3..6, 6..8] {
            let [first, second] = untrained.views_of(&samples[chunk], 0).expect("drawn");
            let passes = match protocol {
                Protocol::Sound => vec![device.concat(&first, &second).expect("alike")],
                Protocol::Paper => vec![first, second],
            };
            for x in passes {
                let x = tape.constant(&x);
                let encoder = &untrained.encoder;
                encoder.forward(&tape, &x, Mode::Training).expect("it fits");
            }
        }
        commit(&untrained.encoder).expect("they fit");
        assert!(
            committed == bits(&device, &untrained.encoder.buffers()),
            "{protocol}"
        );
    }
}

#[test]
fn a_step_in_chunks_repeats_to_the_bit_and_is_not_that_of_one_pass() {
    let device = devices::cpu();
    let run = |images| {
        let mut trainer = simclr(&device, settings(Protocol::Sound, images));
        let losses: Vec<u32> = (0..3)
            .map(|step| take_step(&mut trainer, step).to_bits())
            .collect();
        (losses, bits(&device, &trainer.state()))
    };
    let parts = run(Some(3));
    assert!(parts == run(Some(3)));
    // Each chunk has its own batch statistics.
    assert_ne!(parts.0, run(None).0);
}

#[test]
fn the_peak_of_memory_is_that_of_a_chunk() {
    let dataset = shapes();
    let peak = |images| {
        let device: Device = Arc::new(CpuDevice::new());
        let settings = SimClrSettings {
            micro_batch: images,
            ..SimClrSettings::of_protocol(Protocol::Sound, encoder(), 32, 64, 1e-6, 5)
        };
        let optimization = settings.optimization;
        let objective =
            SimClr::new(&device, settings, dataset.pretraining()).expect("the settings fit");
        let before = device.memory().peak;
        let mut trainer = Trainer::new(&device, objective, optimization).expect("it fits");
        for step in 0..3 {
            take_step(&mut trainer, step);
        }
        (device.memory().peak - before) as f64
    };
    let (whole, eighth) = (peak(None), peak(Some(8)));
    eprintln!("64 images at once {whole:.0} bytes, 8 at a time {eighth:.0}");
    assert!(eighth < whole / 5.0, "{eighth} of {whole} bytes");
}

#[test]
fn a_step_that_is_not_finite_is_replayed_in_its_chunks() {
    let device = devices::cpu();
    let message = |trainer: &mut Trainer<SimClr>| {
        let before = bits(&device, &trainer.state());
        let pending = trainer.step(0).expect("it is recorded");
        let told = match trainer.finish(pending) {
            Err(Error::NonFinite(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(bits(&device, &trainer.state()) == before);
        told
    };
    let mut own = settings(Protocol::Sound, Some(3));
    // Similarities over so small a temperature overflow.
    own.temperature = 1e-40;
    let told = message(&mut simclr(&device, own));
    assert!(
        told.starts_with("step 1:") && told.contains("nt_xent"),
        "{told}"
    );
    let mut trainer = simclr(&device, settings(Protocol::Sound, Some(3)));
    let bias = trainer.objective.projector.parameters()[1].value.clone();
    let width = bias.shape()[0];
    device
        .overwrite(&bias, HostSlice::F32(&vec![f32::NAN; width]))
        .expect("it fits");
    let told = message(&mut trainer);
    assert!(told.contains("images 1 to 3 of the batch"), "{told}");
}

#[test]
fn chunks_that_cannot_be_are_refused() {
    let device = devices::cpu();
    let refused = |images: usize| {
        let made = SimClr::new(
            &device,
            settings(Protocol::Sound, Some(images)),
            shapes().pretraining(),
        );
        match made {
            Err(Error::Usage(message)) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{images} is taken"),
        }
    };
    assert!(refused(0).contains("the micro-batch is 0 images; use 1 to 8"));
    assert!(refused(9).contains("the micro-batch of 9 images is larger than the batch of 8"));
}
