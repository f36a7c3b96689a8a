//! A batch in chunks: the gradients are those of the whole batch if the network treats each image
//! on its own, both passes use the same views, running statistics are updated once per step, and
//! the memory is that of a chunk.
//!
//! `resume.rs` tests that such a run resumes to the same bits, and `memory.rs` the estimate of its
//! memory.

use parallax::augment::PaddedCropAugmentation;
use parallax::autograd::{Mode, PassOptions, Tape, Var};
use parallax::data::{self, DataKind, Dataset, EpochSampler};
use parallax::nn::{Arch, Linear, Module, Normalization, Parameter, ResNet, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::classifier::{Classifier, ClassifierSettings};
use parallax::objectives::rotnet::{self, RotNet, RotNetSettings};
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::ops::{Concat, Slice};
use parallax::optim::{Optimization, OptimizerOptions, Schedule};
use parallax::train::{
    Objective, PartialObjective, StepGradients, Trainer, micro_batch, whole_batch,
};
use parallax::{Device, Error, Result, Tensor};
use proptest::prelude::*;

// This test uses some of the devices.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;

const BATCH: usize = 8;
/// The largest change of a gradient, relative to its norm, that the order of f32 sums explains.
const ROUNDING: f64 = 1e-5;
const EVALUATION: PassOptions = PassOptions {
    mode: Mode::Evaluation,
    ..TRAINING
};
const TRAINING: PassOptions = PassOptions {
    mode: Mode::Training,
    activations: parallax::DType::F32,
    rounds_factors: false,
    recompute: false,
    loss_scale: 1.0,
    momentum: 0.1,
    synchronized: None,
    check: false,
};

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

fn objective(device: &Device, settings: SimClrSettings) -> SimClr {
    SimClr::new(settings, shapes().pretraining(), device).expect("the settings fit")
}

fn trainer(device: &Device, settings: SimClrSettings) -> Trainer<SimClrNetwork, SimClr> {
    let (optimization, micro_batch) = (settings.optimization, settings.micro_batch);
    let network = simclr::network(&settings, device).expect("memory suffices");
    let objective = objective(device, settings);
    let trainer = Trainer::new(network, optimization, objective).expect("memory suffices");
    match micro_batch {
        Some(images) => trainer.with_micro_batch(images),
        None => trainer,
    }
}

fn take_step<M: Module, O: Objective<M>>(trainer: &mut Trainer<M, O>, step: u64) -> f32 {
    let pending = trainer.step(step).expect("it is recorded");
    trainer.finish(pending).expect("it is finite")
}

fn bits(parameters: &[&Parameter]) -> Vec<Vec<u32>> {
    parameters.iter().map(|p| bits_of(&p.value)).collect()
}

fn bits_of(x: &Tensor) -> Vec<u32> {
    floats(x).iter().map(|x| x.to_bits()).collect()
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("it is a float tensor")
}

/// The loss, and the gradient of each parameter with its name.
type Found = (f64, Vec<(String, Vec<f32>)>);

fn read(module: &impl Module, step: Result<StepGradients>) -> Found {
    let step = step.expect("it is computed");
    let named = |p: &&Parameter| {
        let gradient = step.gradients.of(&p.value);
        (
            p.name.clone(),
            floats(gradient.expect("every parameter has one")),
        )
    };
    let values = module.parameters().iter().map(named).collect();
    (f64::from(floats(&step.loss)[0]), values)
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
            let mut trainer = trainer(&device, settings(protocol, None));
            // The running statistics of a network in training.
            for step in 0..3 {
                take_step(&mut trainer, step);
            }
            let network = &trainer.module;
            let objective = &mut objective(&device, settings(protocol, None));
            let pass = (&device, EVALUATION);
            let whole = read(network, whole_batch(objective, network, pass, 7));
            for images in [1, 2, 3, 5, 7, BATCH] {
                let found = micro_batch::in_chunks(objective, network, pass, 7, images);
                let parts = read(network, found);
                near(&format!("{name}, {protocol}, {images}"), &whole, &parts);
            }
            // Shows that the comparison distinguishes steps.
            let other = read(network, whole_batch(objective, network, pass, 8));
            assert!(distance(&whole, &other).0 > 0.1);
        }
    }
}

/// Compares the gradients of `step` in chunks of these sizes with those of the whole batch.
fn chunks_are_the_whole<M: Module>(
    what: &str,
    (module, mut objective): (M, impl PartialObjective<M>),
    pass: (&Device, PassOptions),
    step: u64,
) {
    let whole = read(&module, whole_batch(&mut objective, &module, pass, step));
    for images in [1, 3, 4] {
        let found = micro_batch::in_chunks(&mut objective, &module, pass, step, images);
        near(&format!("{what}, {images}"), &whole, &read(&module, found));
    }
}

#[test]
fn gradients_of_means_are_those_of_the_whole_batch_in_evaluation_mode() {
    let device = devices::cpu();
    let dataset = shapes();

    let settings = RotNetSettings::of_protocol(Protocol::Sound, encoder(), BATCH, 5e-4, 3);
    let network = rotnet::network(&settings, &device).expect("memory suffices");
    let objective = RotNet::new(settings, dataset.pretraining(), &device);
    let objective = objective.expect("the settings fit");
    chunks_are_the_whole("RotNet", (network, objective), (&device, EVALUATION), 2);

    let settings = ClassifierSettings {
        batch_size: BATCH,
        micro_batch: None,
        optimization: Optimization {
            optimizer: OptimizerOptions::nesterov(0.0),
            learning_rate: 0.01,
            schedule: Schedule::constant(),
        },
        augmentation: PaddedCropAugmentation::default(),
        normalization: Normalization::default(),
        frozen_after_first_epoch: true,
        seed: 4,
    };
    let encoder = ResNet::new(&encoder(), 1, &device).expect("memory suffices");
    let head = Linear::new("fc", encoder.feature_width(), 10, 1, &device);
    let members = (0..2 * BATCH as u32).collect();
    let objective = Classifier::new(settings, encoder.shape(), &dataset.train, members, &device);
    let objective = objective.expect("the settings fit");
    let network = (encoder, head.expect("memory suffices"));
    // The second epoch, in which the objective freezes batch norm.
    chunks_are_the_whole("classifier", (network, objective), (&device, TRAINING), 3);
}

/// The contrastive loss of a linear network over fixed rows.
struct Contrast {
    /// First views above second views, each `[images, inputs]`.
    x: Vec<f32>,
    images: usize,
    temperature: f32,
}

impl Objective<Linear> for Contrast {
    fn loss(&mut self, module: &Linear, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.samples(step);
        self.score(&self.rows(module, tape, &samples, step)?, &samples)
    }
}

impl PartialObjective<Linear> for Contrast {
    const IS_MEAN: bool = false;

    fn samples(&mut self, _: u64) -> Vec<u32> {
        (0..self.images as u32).collect()
    }

    fn rows(&self, module: &Linear, tape: &Tape, samples: &[u32], _: u64) -> Result<Var> {
        let inputs = self.x.len() / (2 * self.images);
        let mut rows = Vec::new();
        for view in [0, self.images] {
            for &sample in samples {
                let row = view + sample as usize;
                rows.extend_from_slice(&self.x[row * inputs..][..inputs]);
            }
        }
        let x = Tensor::from_slice(&rows, &[2 * samples.len(), inputs], tape.device())?;
        module.forward(&tape.constant(&x))
    }

    fn score(&self, rows: &Var, _: &[u32]) -> Result<Var> {
        rows.l2_normalize(1e-12)?.nt_xent(self.temperature)
    }
}

/// The loss of [`Contrast`] in float64, and what follows from it.
mod float64 {
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// `z [n, outputs] = x [n, inputs] w [outputs, inputs]^T + bias`
    pub fn linear(inputs: usize, x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
        let rows = x.chunks(inputs);
        let row = |x| w.chunks(inputs).zip(bias).map(move |(w, b)| dot(x, w) + b);
        rows.flat_map(row).collect()
    }

    /// The rows of `z` scaled to length 1, and their norms.
    pub fn l2_normalize(width: usize, z: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
        let norms = z.chunks(width).map(|row| dot(row, row).sqrt().max(eps));
        let norms: Vec<f64> = norms.collect();
        let of = |(z, norm): (usize, &f64)| (z, *norm);
        let y = norms.iter().enumerate().map(of).flat_map(|(row, norm)| {
            let z = &z[row * width..][..width];
            z.iter().map(move |z| z / norm)
        });
        (y.collect(), norms)
    }

    /// `dz = (dy - y (y . dy)) / norm`, or `dy / norm` if the row is shorter than `eps`.
    pub fn l2_normalize_backward(
        width: usize,
        dy: &[f64],
        y: &[f64],
        norms: &[f64],
        eps: f64,
    ) -> Vec<f64> {
        let rows = dy.chunks(width).zip(y.chunks(width)).zip(norms);
        let row = |((dy, y), &norm): ((&[f64], &[f64]), &f64)| -> Vec<f64> {
            let along = if norm <= eps { 0.0 } else { dot(y, dy) };
            let elements = dy.iter().zip(y);
            elements.map(|(dy, y)| (dy - y * along) / norm).collect()
        };
        rows.flat_map(row).collect()
    }

    /// The loss, and `dy` for the gradient 1 of the loss. With `s_ij = y_i . y_j / temperature` and
    /// `p_ij = exp(s_ij) / sum_{k != i} exp(s_ik)`, the loss is the mean of `-log p_i,pos(i)`, and
    /// `dy_i = 1 / (2N temperature) (sum_{j != i} (p_ij + p_ji) y_j - 2 y_pos(i))`.
    pub fn nt_xent(width: usize, y: &[f64], temperature: f64) -> (f64, Vec<f64>) {
        let y: Vec<&[f64]> = y.chunks(width).collect();
        let rows = y.len();
        let s = |i: usize, j: usize| dot(y[i], y[j]) / temperature;
        let others = |i: usize| (0..rows).filter(move |&j| j != i);
        let log_sum_exp = |i: usize| {
            let max = others(i).map(|j| s(i, j)).fold(f64::NEG_INFINITY, f64::max);
            max + others(i).map(|j| (s(i, j) - max).exp()).sum::<f64>().ln()
        };
        let lse: Vec<f64> = (0..rows).map(log_sum_exp).collect();
        let positive = |i: usize| (i + rows / 2) % rows;
        let loss = (0..rows).map(|i| lse[i] - s(i, positive(i))).sum::<f64>() / rows as f64;
        let p = |i: usize, j: usize| (s(i, j) - lse[i]).exp();
        let mut dy = Vec::new();
        for i in 0..rows {
            let mut sums: Vec<f64> = y[positive(i)].iter().map(|y| -2.0 * y).collect();
            for j in others(i) {
                let weight = p(i, j) + p(j, i);
                for (sum, y) in sums.iter_mut().zip(y[j]) {
                    *sum += weight * y;
                }
            }
            dy.extend(sums.iter().map(|sum| sum / (rows as f64 * temperature)));
        }
        (loss, dy)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A linear network, whose loss and gradients are computed by loops in float64: any rows,
    /// chunks, widths and temperatures.
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
        let bias = vec![0.1f32; width];
        let network = Linear::new("fc", inputs, width, 0, &device).expect("memory suffices");
        for (parameter, values) in network.parameters().into_iter().zip([&w, &bias]) {
            parameter.value.overwrite(values).expect("they fit");
        }
        let mut objective = Contrast { x: x.clone(), images, temperature };
        let pass = (&device, TRAINING);
        let found = micro_batch::in_chunks(&mut objective, &network, pass, 0, micro_batch);
        let (loss, gradients) = read(&network, found);
        let dw = &gradients[0].1;

        let [x, w, bias] = [&x, &w, &bias].map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        let z = float64::linear(inputs, &x, &w, &bias);
        let (y, norm) = float64::l2_normalize(width, &z, 1e-12);
        let t = f64::from(temperature);
        let (expected, dy) = float64::nt_xent(width, &y, t);
        let dz = float64::l2_normalize_backward(width, &dy, &y, &norm, 1e-12);
        prop_assert!((loss - expected).abs() < 1e-5 * (1.0 + 2.0 / t), "{loss}, not {expected}");
        for (at, &found) in dw.iter().enumerate() {
            let (o, i) = (at / inputs, at % inputs);
            let rows = 0..2 * images;
            let exact: f64 = rows.clone().map(|n| dz[n * width + o] * x[n * inputs + i]).sum();
            // The dz of a row is at most 4 / (2N temperature |z|). Roundings are in proportion to
            // that.
            let most: f64 = rows
                .map(|n| 4.0 / (2.0 * images as f64 * t * norm[n]) * x[n * inputs + i].abs())
                .sum();
            prop_assert!(
                (f64::from(found) - exact).abs() <= 1e-5 * (1.0 + 1.0 / t) * most,
                "dw[{o}, {i}]: {found}, not {exact}"
            );
        }
    }
}

/// One chunk is the whole batch, in training mode too. The second pass has the views of the first
/// pass, to the bit. Otherwise the gradients would not be those of one pass.
#[test]
fn one_chunk_is_a_step_without_chunks_to_the_bit() {
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        for protocol in [Protocol::Sound, Protocol::Paper] {
            let mut trainer = trainer(&device, settings(protocol, None));
            take_step(&mut trainer, 0);
            let network = &trainer.module;
            let objective = &mut objective(&device, settings(protocol, None));
            let pass = (&device, TRAINING);
            let whole = read(network, whole_batch(objective, network, pass, 1));
            let parts = micro_batch::in_chunks(objective, network, pass, 1, BATCH);
            assert!(whole == read(network, parts), "{name}, {protocol}");
        }
    }
    // The option of the trainer, over some steps.
    let device = devices::cpu();
    let mut without = trainer(&device, settings(Protocol::Sound, None));
    let mut with = trainer(&device, settings(Protocol::Sound, Some(BATCH)));
    for step in 0..4 {
        let losses = [&mut without, &mut with].map(|trainer| take_step(trainer, step).to_bits());
        assert_eq!(losses[0], losses[1], "step {step}");
    }
    assert!(bits(&without.state()) == bits(&with.state()));
}

/// The samples of a step.
fn samples(step: u64) -> Vec<u32> {
    let sampler = EpochSampler::new(shapes().pretraining().len(), BATCH, 5);
    sampler.expect("they suffice").batch(step)
}

#[test]
fn a_chunk_has_the_views_of_the_whole_batch() {
    let device = devices::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let mut objective = objective(&device, settings(protocol, None));
        let whole = objective.views(3).expect("views are drawn");
        let samples = samples(3);
        for chunk in micro_batch::chunks(BATCH, 3) {
            let views = objective.views_of(&samples[chunk.clone()], 3);
            for (x, part) in whole.iter().zip(views.expect("views are drawn")) {
                let (start, count) = (chunk.start, chunk.len());
                let rows = device.run(Slice { x, start, count });
                assert!(
                    bits_of(&rows.expect("they are there")) == bits_of(&part),
                    "{protocol}, {chunk:?}"
                );
            }
        }
    }
}

/// The statistics of each chunk are applied once, in the order of the chunks.
#[test]
fn running_statistics_are_updated_once_per_step() {
    let device = devices::cpu();
    for protocol in [Protocol::Sound, Protocol::Paper] {
        let mut chunked = trainer(&device, settings(protocol, Some(3)));
        take_step(&mut chunked, 0);
        let updated = bits(&chunked.module.buffers());

        let (encoder, projector) = simclr::network(&settings(protocol, None), &device).unwrap();
        let mut objective = objective(&device, settings(protocol, None));
        let samples = samples(0);
        let tape = Tape::forward_only(&device, TRAINING);
        let mut passes = 0;
        for chunk in [0..3, 3..6, 6..8] {
            let [first, second] = objective.views_of(&samples[chunk], 0).expect("drawn");
            let images = match protocol {
                Protocol::Sound => {
                    let (a, b) = (&first, &second);
                    vec![device.run(Concat { a, b }).expect("alike")]
                }
                Protocol::Paper => vec![first, second],
            };
            for images in images {
                encoder.forward(&tape.constant(&images)).expect("it fits");
                passes += 1;
            }
        }
        let updates = tape.take_buffer_updates();
        // One per batch norm and pass; GradCache drops those of its first pass.
        assert_eq!(updates.len(), 20 * passes);
        let network = (encoder, projector);
        let pass = (&device, TRAINING);
        let step = micro_batch::in_chunks(&mut objective, &network, pass, 0, 3);
        assert_eq!(step.expect("it fits").updates.len(), 20 * passes);
        for update in updates {
            update.apply(&device, None).expect("it fits");
        }
        assert!(updated == bits(&network.buffers()), "{protocol}");
    }
}

#[test]
fn a_step_in_chunks_repeats_to_the_bit_and_is_not_that_of_one_pass() {
    let device = devices::cpu();
    let run = |images| {
        let mut trainer = trainer(&device, settings(Protocol::Sound, images));
        let losses: Vec<u32> = (0..3)
            .map(|step| take_step(&mut trainer, step).to_bits())
            .collect();
        (losses, bits(&trainer.state()))
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
        let device = Device::cpu();
        let settings = SimClrSettings::of_protocol(Protocol::Sound, encoder(), 32, 64, 1e-6, 5);
        let optimization = settings.optimization;
        let network = simclr::network(&settings, &device).expect("memory suffices");
        let objective = SimClr::new(settings, dataset.pretraining(), &device);
        let before = device.memory().peak;
        let trainer = Trainer::new(network, optimization, objective.expect("the settings fit"));
        let mut trainer = trainer.expect("memory suffices");
        if let Some(images) = images {
            trainer = trainer.with_micro_batch(images);
        }
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
    let message = |trainer: &mut Trainer<SimClrNetwork, SimClr>| {
        let before = bits(&trainer.state());
        let pending = trainer.step(0).expect("it is recorded");
        let message = match trainer.finish(pending) {
            Err(Error::NonFinite(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(bits(&trainer.state()) == before);
        message
    };
    let mut own = settings(Protocol::Sound, Some(3));
    // Similarities divided by so small a temperature overflow.
    own.temperature = 1e-40;
    let found = message(&mut trainer(&device, own));
    assert!(
        found.starts_with("step 1:") && found.contains("nt_xent"),
        "{found}"
    );
    let mut trainer = trainer(&device, settings(Protocol::Sound, Some(3)));
    let bias = &trainer.module.1.parameters()[1].value;
    bias.overwrite(&vec![f32::NAN; bias.len()])
        .expect("it fits");
    let found = message(&mut trainer);
    assert!(found.contains("images 1 to 3 of the batch"), "{found}");
}

#[test]
fn chunks_that_are_not_possible_are_refused() {
    let device = devices::cpu();
    let refused = |images: usize| {
        let settings = settings(Protocol::Sound, Some(images));
        match SimClr::new(settings, shapes().pretraining(), &device) {
            Err(Error::Usage(message)) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{images} is accepted"),
        }
    };
    assert!(refused(0).contains("the micro-batch is 0 images; use 1 to 8"));
    assert!(refused(9).contains("the micro-batch of 9 images is larger than the batch of 8"));
}
