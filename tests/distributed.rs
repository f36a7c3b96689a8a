//! Training on several ranks, which `mpirun` starts: each case of this program runs itself on ranks
//! and compares what they write with a single process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use parallax::augment::PaddedCropAugmentation;
use parallax::autograd::{PassOptions, Tape, Var};
use parallax::data::{self, DataKind, Dataset};
use parallax::distributed::{self, Group};
use parallax::nn::{Arch, Linear, Module, Normalization, Parameter, ResNet, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::classifier::{Classifier, ClassifierSettings};
use parallax::objectives::rotnet::{self, RotNet, RotNetSettings};
use parallax::objectives::simclr::{self, SimClr, SimClrSettings};
use parallax::optim::{Optimization, OptimizerOptions, Schedule};
use parallax::philox::Philox;
use parallax::train::{
    Objective, PartialObjective, StepGradients, Trainer, data_parallel, micro_batch, whole_batch,
};
use parallax::{DType, Device, Error, Result, Tensor};

const BATCH: usize = 8;
/// Steps of the comparison with the whole batch.
const STEPS: u64 = 20;
/// The learning rate of SGD. At 0.01, steps of so few images amplify rounding to 1 % of the loss
/// within 20 steps.
const RATE: f64 = 1e-4;
const METHODS: [&str; 3] = ["simclr", "rotnet", "supervised"];

/// The environment variable with the words that select the case of a rank.
const CASE: &str = "PARALLAX_DISTRIBUTED_CASE";
/// The folder for results.
const FOLDER: &str = "PARALLAX_DISTRIBUTED_FOLDER";

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        return rank(&case);
    }
    let cases: [(&str, fn()); 13] = [
        ("a_step_per_rank_has_the_bits_of_chunks", per_rank),
        ("synchronized_ranks_compute_the_whole_batch", synchronized),
        ("contrastive_gradients_are_those_of_all_pairs", all_pairs),
        ("gradients_are_exchanged_during_the_backward_pass", overlap),
        ("a_machine_reads_a_data_set_once", read_once),
        ("a_batch_that_cannot_be_divided_is_refused", not_divisible),
        ("a_late_rank_is_named", late),
        ("a_killed_rank_ends_the_run", killed),
        ("the_program_trains_on_ranks", program),
        ("errors_of_all_ranks_are_printed_once", errors_once),
        ("a_signal_to_mpirun_leaves_a_checkpoint", signals),
        ("ranks_divide_evaluations", evaluations),
        ("ranks_divide_the_jobs_of_a_grid", grid),
    ];
    // As in other tests, the first argument selects cases by a part of their names.
    let selected = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    let selected = selected.unwrap_or_default();
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&selected)) {
        let started = Instant::now();
        case();
        println!(
            "test {name} ... ok ({:.1} s)",
            started.elapsed().as_secs_f64()
        );
    }
}

/// `mpirun` with this number of ranks, whatever the number of cores is.
fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["--allow-run-as-root", "--oversubscribe", "-n"])
        .arg(ranks.to_string());
    command
}

/// Runs this program on `ranks` ranks, with the words of `case`.
fn on_ranks(ranks: usize, case: &str, folder: &Path) -> Output {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = mpirun(ranks);
    command.arg(program).env(CASE, case).env(FOLDER, folder);
    command.output().expect("mpirun; install openmpi-bin")
}

fn succeeded(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn rank(case: &str) {
    let patience = match case {
        "late" => Duration::from_secs(1),
        _ => distributed::PATIENCE,
    };
    let group = distributed::start(patience).expect("MPI starts");
    let folder = std::env::var(FOLDER).expect("the folder for results");
    let folder = Path::new(&folder);
    let words: Vec<&str> = case.split(' ').collect();
    match words.as_slice() {
        ["train", method, steps, is_synchronized] => {
            let options = PassOptions {
                synchronized: (*is_synchronized == "true").then_some(group),
                ..PassOptions::default()
            };
            let steps = steps.parse().expect("a number");
            let found = train(method, steps, options, Parts::Ranks(group));
            let path = folder.join(format!("rank{}", group.rank()));
            std::fs::write(path, bytes(&found)).expect("the folder can be written");
        }
        ["pairs"] => pairs(group),
        ["overlap"] => overlap_on(group),
        ["read"] => read_on(group),
        ["indivisible"] => {
            let error = data_parallel::check(BATCH, group).expect_err("8 is no multiple of 3");
            let error = error.to_string();
            assert!(error.contains("use a multiple of 3"), "{error}");
        }
        ["late"] => {
            if group.rank() == 1 {
                std::thread::sleep(Duration::from_secs(120));
            }
            let error = group.wait().expect_err("rank 1 is late").to_string();
            eprintln!("{error}");
            std::process::exit(1);
        }
        ["killed"] => {
            if group.rank() == 1 {
                std::process::abort();
            }
            group.wait().expect("rank 1 never comes");
        }
        _ => panic!("the case '{case}' is not known"),
    }
    distributed::finish();
}

/// How the batch is divided.
#[derive(Clone, Copy)]
enum Parts {
    Whole,
    Chunks(usize),
    Ranks(Group),
}

/// The values of a trainer's state by name.
type State = BTreeMap<String, Vec<f32>>;

/// What a training computed.
struct Found {
    losses: Vec<f32>,
    after_first: State,
    at_end: State,
}

fn bytes(found: &Found) -> Vec<u8> {
    let states = [&found.after_first, &found.at_end];
    let states = states
        .into_iter()
        .flat_map(|state| state.values().flatten());
    let values = found.losses.iter().chain(states);
    values.flat_map(|x| x.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
        .collect()
}

fn encoder() -> ResNetConfig {
    ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    }
}

/// Shapes with noise. Without it, many pixels are equal, and all of them can be at the kink of a
/// ReLU, where rounding decides the gradient.
fn images() -> Dataset {
    let mut data = data::load(DataKind::Shapes, None, 0).expect("shapes are drawn");
    let mut random = Philox::new(1, [0; 3]);
    let mut pixels = data.train.pixels().expect("they are held").into_owned();
    for byte in &mut pixels {
        *byte = *byte / 2 + (random.next_u32() % 128) as u8;
    }
    data.train.images = pixels.into();
    data
}

fn train(method: &str, steps: u64, options: PassOptions, parts: Parts) -> Found {
    let device = &Device::cpu();
    let data = images();
    let images = data.pretraining();
    match method {
        "simclr" => {
            let settings =
                SimClrSettings::of_protocol(Protocol::Sound, encoder(), 32, BATCH, 1e-6, 5);
            let network = simclr::network(&settings, device).expect("memory suffices");
            let optimization = settings.optimization;
            let objective = SimClr::new(settings, images, device).expect("it fits");
            trained(network, optimization, objective, steps, options, parts)
        }
        "rotnet" => {
            let settings = RotNetSettings::of_protocol(Protocol::Sound, encoder(), BATCH, 5e-4, 3);
            let network = rotnet::network(&settings, device).expect("memory suffices");
            let optimization = Optimization {
                learning_rate: RATE,
                ..settings.optimization
            };
            let objective = RotNet::new(settings, images, device).expect("it fits");
            trained(network, optimization, objective, steps, options, parts)
        }
        _ => {
            let optimization = Optimization {
                optimizer: OptimizerOptions::nesterov(0.0),
                learning_rate: RATE,
                schedule: Schedule::constant(),
            };
            let settings = ClassifierSettings {
                batch_size: BATCH,
                micro_batch: None,
                optimization,
                augmentation: PaddedCropAugmentation::default(),
                normalization: Normalization::default(),
                frozen_after_first_epoch: false,
                seed: 1,
            };
            let network = ResNet::new(&encoder(), 1, device).expect("memory suffices");
            let width = network.feature_width();
            let head = Linear::new("fc", width, data.classes.len(), 1, device);
            let network = (network, head.expect("memory suffices"));
            let shape = encoder().shape().expect("a network");
            let members = (0..64).collect();
            let objective = Classifier::new(settings, &shape, &data.train, members, device);
            let objective = objective.expect("it fits");
            trained(network, optimization, objective, steps, options, parts)
        }
    }
}

fn trained<M: Module, O: PartialObjective<M>>(
    network: M,
    optimization: Optimization,
    objective: O,
    steps: u64,
    options: PassOptions,
    parts: Parts,
) -> Found {
    let trainer = Trainer::new(network, optimization, objective).expect("memory suffices");
    let trainer = trainer.with_options(options).expect("they are possible");
    let mut trainer = match parts {
        Parts::Whole => trainer,
        Parts::Chunks(images) => trainer.with_micro_batch(images),
        Parts::Ranks(group) => trainer.with_group(group),
    };
    let state = |trainer: &Trainer<M, O>| {
        let named = |p: &Parameter| (p.name.clone(), p.value.to_vec().expect("f32"));
        trainer.state().into_iter().map(named).collect()
    };
    let mut found = Found {
        losses: Vec::new(),
        after_first: State::new(),
        at_end: State::new(),
    };
    for step in 0..steps {
        let pending = trainer.step(step).expect("it is recorded");
        let loss = trainer.finish(pending).expect("it is finite");
        found.losses.push(loss);
        if step == 0 {
            found.after_first = state(&trainer);
        }
    }
    found.at_end = state(&trainer);
    found
}

fn per_rank() {
    for method in METHODS {
        for ranks in [1, 2, 4] {
            let folder = tempfile::tempdir().expect("a folder");
            succeeded(&on_ranks(
                ranks,
                &format!("train {method} 3 false"),
                folder.path(),
            ));
            let chunks = Parts::Chunks(BATCH / ranks);
            let expected = bytes(&train(method, 3, PassOptions::default(), chunks));
            for rank in 0..ranks {
                let found = std::fs::read(folder.path().join(format!("rank{rank}")));
                let is_equal = found.expect("the rank wrote it") == expected;
                assert!(is_equal, "{method}: rank {rank} of {ranks} differs");
            }
        }
        // Shows that the comparison distinguishes numbers of ranks.
        let whole = train(method, 3, PassOptions::default(), Parts::Whole);
        let chunks = train(method, 3, PassOptions::default(), Parts::Chunks(BATCH / 2));
        assert!(bytes(&whole) != bytes(&chunks), "{method}");
    }
}

/// The distance of two vectors, relative to the norm of the first.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    apart / norm(&mut a.iter().map(|&x| f64::from(x)))
}

fn synchronized() {
    for method in METHODS {
        let whole = train(method, STEPS, PassOptions::default(), Parts::Whole);
        for ranks in [2, 4] {
            let train_on_ranks = || {
                let folder = tempfile::tempdir().expect("a folder");
                let case = format!("train {method} {STEPS} true");
                succeeded(&on_ranks(ranks, &case, folder.path()));
                let read = |rank: usize| {
                    let path = folder.path().join(format!("rank{rank}"));
                    std::fs::read(path).expect("the rank wrote it")
                };
                let first = read(0);
                let differs = (1..ranks).find(|&rank| read(rank) != first);
                assert_eq!(differs, None, "{method}: ranks have other bits");
                first
            };
            let found = train_on_ranks();
            if method == METHODS[0] {
                assert!(found == train_on_ranks(), "{ranks} ranks do not repeat");
            }
            let found = floats(&found);
            let (losses, mut rest) = found.split_at(STEPS as usize);
            let losses = whole.losses.iter().zip(losses);
            let apart = losses.map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f32::max);
            // After one step, the momentum is the gradient, and so is Adam's first moment but for
            // a factor.
            let mut farthest = (0.0, "");
            for (name, expected) in &whole.after_first {
                let (values, others) = rest.split_at(expected.len());
                rest = others;
                let kinds = ["momentum.", "first_moment.", "running_"];
                if kinds.iter().any(|kind| name.contains(kind)) {
                    let apart = distance(expected, values);
                    if apart > farthest.0 {
                        farthest = (apart, name);
                    }
                }
            }
            println!(
                "{method}, {ranks} ranks: losses within {apart:.1e}, first gradients within {:.1e}",
                farthest.0
            );
            assert!(
                apart < 1e-4,
                "{method}, {ranks} ranks: losses differ by {apart:e}"
            );
            assert!(farthest.0 < 1e-5, "{method}, {ranks} ranks: {farthest:?}");
        }
    }
}

fn all_pairs() {
    let folder = tempfile::tempdir().expect("a folder");
    for ranks in [1, 2, 4] {
        succeeded(&on_ranks(ranks, "pairs", folder.path()));
    }
}

const INPUTS: usize = 3;
const OUTPUTS: usize = 4;
const TEMPERATURE: f64 = 0.5;

/// NT-Xent of two views of numbers under a linear layer.
struct Pairs {
    device: Device,
    /// For each view, `[BATCH, INPUTS]`.
    views: [Vec<f32>; 2],
}

impl Pairs {
    fn new(device: &Device) -> Self {
        let view = |view: usize| {
            let number = |i: usize| ((i * 7 + view * 3) as f32).sin() + 0.1 * (i % 5) as f32;
            (0..BATCH * INPUTS).map(number).collect()
        };
        Pairs {
            device: device.clone(),
            views: [view(0), view(1)],
        }
    }

    /// The loss in float64 for the weight `[OUTPUTS, INPUTS]`.
    fn reference(&self, weight: &[f64], bias: &[f64]) -> f64 {
        let embed = |x: &[f32]| {
            let z: Vec<f64> = (0..OUTPUTS)
                .map(|o| {
                    let row = &weight[o * INPUTS..(o + 1) * INPUTS];
                    let products = row.iter().zip(x).map(|(w, &x)| w * f64::from(x));
                    bias[o] + products.sum::<f64>()
                })
                .collect();
            let norm = z.iter().map(|z| z * z).sum::<f64>().sqrt();
            z.iter().map(|z| z / norm).collect::<Vec<f64>>()
        };
        let rows = self.views.iter().flat_map(|view| view.chunks(INPUTS));
        let z: Vec<Vec<f64>> = rows.map(embed).collect();
        let similarity = |i: usize, j: usize| {
            let dot: f64 = z[i].iter().zip(&z[j]).map(|(a, b)| a * b).sum();
            (dot / TEMPERATURE).exp()
        };
        let of_row = |i: usize| {
            let all = (0..2 * BATCH).filter(|&j| j != i);
            let sum: f64 = all.map(|j| similarity(i, j)).sum();
            sum.ln() - similarity(i, (i + BATCH) % (2 * BATCH)).ln()
        };
        (0..2 * BATCH).map(of_row).sum::<f64>() / (2 * BATCH) as f64
    }
}

impl Objective<Linear> for Pairs {
    fn loss(&mut self, module: &Linear, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.samples(step);
        let z = self.rows(module, tape, &samples, step)?;
        self.score(&z, &samples)
    }
}

impl PartialObjective<Linear> for Pairs {
    const IS_MEAN: bool = false;

    fn samples(&mut self, _: u64) -> Vec<u32> {
        (0..BATCH as u32).collect()
    }

    fn rows(&self, module: &Linear, tape: &Tape, samples: &[u32], _: u64) -> Result<Var> {
        let mut x = Vec::<f32>::new();
        for view in &self.views {
            for &sample in samples {
                x.extend(&view[sample as usize * INPUTS..][..INPUTS]);
            }
        }
        let x = Tensor::from_slice(&x, &[2 * samples.len(), INPUTS], &self.device)?;
        module.forward(&tape.constant(&x))
    }

    fn score(&self, z: &Var, _: &[u32]) -> Result<Var> {
        z.l2_normalize(1e-12)?.nt_xent(TEMPERATURE as f32)
    }
}

/// Compares the gradients of all ranks with central differences of the loss in float64.
fn pairs(group: Group) {
    let device = Device::cpu();
    let mut objective = Pairs::new(&device);
    let module = Linear::new("fc", INPUTS, OUTPUTS, 9, &device).expect("memory suffices");
    let pass = (&device, PassOptions::default());
    let step = match group.size() {
        1 => whole_batch(&mut objective, &module, pass, 0),
        _ => data_parallel::in_ranks(&mut objective, &module, pass, 0, (group, BATCH)),
    };
    let step = step.expect("it is computed");
    let parameters = module.parameters();
    let values: Vec<Vec<f64>> = parameters
        .iter()
        .map(|p| p.value.to_vec::<f32>().expect("f32"))
        .map(|values| values.into_iter().map(f64::from).collect())
        .collect();
    let loss = |values: &[Vec<f64>]| objective.reference(&values[0], &values[1]);
    let found = f64::from(step.loss.to_scalar::<f32>().expect("one number"));
    assert!((found - loss(&values)).abs() < 1e-6, "{found}");
    for (p, parameter) in parameters.iter().enumerate() {
        assert_eq!(parameter.value.dtype(), DType::F32);
        let gradient = step.gradients.of(&parameter.value).expect("it has one");
        let gradient = gradient.to_vec::<f32>().expect("f32");
        for (i, &found) in gradient.iter().enumerate() {
            let at = |change: f64| {
                let mut moved = values.clone();
                moved[p][i] += change;
                loss(&moved)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (f64::from(found) - expected).abs() < 1e-6,
                "{}, {i}: {found}, expected {expected}",
                parameter.name
            );
        }
    }
}

fn overlap() {
    let folder = tempfile::tempdir().expect("a folder");
    for ranks in [1, 2, 4] {
        succeeded(&on_ranks(ranks, "overlap", folder.path()));
    }
}

/// Width of a layer whose gradient is larger than a bucket of an exchange.
const WIDE: usize = 1100;

/// The mean of all outputs of two layers. Between them, an operation notes in its backward pass how
/// many sums over ranks were begun.
struct Wide {
    device: Device,
    begun: Rc<RefCell<Vec<u64>>>,
}

impl Objective<(Linear, Linear)> for Wide {
    fn loss(&mut self, module: &(Linear, Linear), tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.samples(step);
        let rows = self.rows(module, tape, &samples, step)?;
        self.score(&rows, &samples)
    }
}

impl PartialObjective<(Linear, Linear)> for Wide {
    const IS_MEAN: bool = true;

    fn samples(&mut self, _: u64) -> Vec<u32> {
        (0..BATCH as u32).collect()
    }

    fn rows(
        &self,
        (first, second): &(Linear, Linear),
        tape: &Tape,
        samples: &[u32],
        _: u64,
    ) -> Result<Var> {
        let row = |&sample: &u32| (0..WIDE).map(move |i| (sample as usize * 7 + i) as f32);
        let x: Vec<f32> = samples.iter().flat_map(row).map(f32::sin).collect();
        let x = Tensor::from_slice(&x, &[samples.len(), WIDE], &self.device)?;
        let hidden = first.forward(&tape.constant(&x))?;
        let (y, begun) = (hidden.tensor().clone(), self.begun.clone());
        let noted = Var::record("note", y, [("x", &hidden)], move |_, dy| {
            begun.borrow_mut().push(distributed::traffic().begun);
            Ok([dy])
        })?;
        second.forward(&noted)
    }

    fn score(&self, rows: &Var, samples: &[u32]) -> Result<Var> {
        rows.sum()?.scale(1.0 / samples.len() as f32)
    }
}

/// The sum of the second layer's gradient is begun before the backward pass of the first layer, in
/// the last chunk only.
fn overlap_on(group: Group) {
    let device = Device::cpu();
    let begun = Rc::default();
    let mut objective = Wide {
        device: device.clone(),
        begun: Rc::clone(&begun),
    };
    let layer = |name| Linear::new(name, WIDE, WIDE, 3, &device).expect("memory suffices");
    let module = (layer("first"), layer("second"));
    let pass = (&device, PassOptions::default());
    let values = |step: &StepGradients| -> Vec<u32> {
        let gradients = module.parameters().into_iter();
        let gradients = gradients.map(|p| step.gradients.of(&p.value).expect("it has one"));
        let all = Tensor::all_to_vec::<f32>([&step.loss].into_iter().chain(gradients));
        let all = all.expect("f32").into_iter();
        all.map(f32::to_bits).collect()
    };
    let part = BATCH / group.size();
    let chunks = micro_batch::in_chunks(&mut objective, &module, pass, 0, part);
    let expected = values(&chunks.expect("it is computed"));
    for micro_batch in [part, 1] {
        let mut found = Vec::new();
        for _ in 0..2 {
            begun.borrow_mut().clear();
            let before = distributed::traffic().begun;
            let parts = (group, micro_batch);
            let step = data_parallel::in_ranks(&mut objective, &module, pass, 0, parts);
            found.push(values(&step.expect("it is computed")));
            let notes: Vec<u64> = begun.borrow().iter().map(|n| n - before).collect();
            let mut expected = vec![0; part / micro_batch];
            *expected.last_mut().expect("a chunk") = 1;
            assert_eq!(notes, expected, "micro-batches of {micro_batch}");
            // Another one for the first layer, and the last one for the loss.
            assert_eq!(distributed::traffic().begun - before, 3);
        }
        assert!(found[0] == found[1], "it does not repeat");
        assert!(micro_batch < part || found[0] == expected, "other bits");
    }
}

fn read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    succeeded(&on_ranks(3, "read", folder.path()));
}

/// All ranks are on this machine, so the first one reads for them.
fn read_on(group: Group) {
    let mut reads = 0;
    let read = || {
        reads += 1;
        let mut data = images();
        data.unlabelled = Some(data.test.clone());
        data.train.files = vec!["a.png".to_string()];
        Ok(data)
    };
    let found = data::read_once(group, read).expect("it is read");
    assert_eq!(reads, usize::from(group.is_first()));
    assert_eq!(group.on_machine(), 3);
    let expected = images();
    let pixels = |split: &data::Split| split.pixels().expect("they are held").into_owned();
    assert!(pixels(&found.train) == pixels(&expected.train));
    assert!(found.train.labels == expected.train.labels);
    assert!(pixels(&found.test) == pixels(&expected.test));
    let unlabelled = found.unlabelled.expect("it was sent");
    assert!(pixels(&unlabelled) == pixels(&expected.test));
    assert_eq!(found.train.files, ["a.png"]);
    assert_eq!(found.classes, expected.classes);
    assert_eq!(found.digest, expected.digest);

    let damaged = || Err(Error::data("images/a.png", "is damaged"));
    let error = data::read_once(group, damaged).expect_err("it is damaged");
    assert_eq!(error.to_string(), "images/a.png: is damaged");
    let own = match group.rank() {
        0 => Ok(()),
        rank => Err(Error::usage(format!("the error of rank {rank}"))),
    };
    let error = group.agree(own).expect_err("two ranks have one");
    assert_eq!(error.to_string(), "the error of rank 1");
}

fn not_divisible() {
    let folder = tempfile::tempdir().expect("a folder");
    succeeded(&on_ranks(3, "indivisible", folder.path()));
}

fn late() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let output = on_ranks(3, "late", folder.path());
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("rank 1 did not arrive within 1 s"),
        "{errors}"
    );
    assert!(started.elapsed() < Duration::from_secs(60));
}

fn killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = on_ranks(3, "killed", folder.path());
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("rank 1"), "{errors}");
}

/// The program on this many ranks, or without `mpirun` if there are 0.
fn parallax(ranks: usize) -> Command {
    let program = env!("CARGO_BIN_EXE_parallax");
    if ranks == 0 {
        return Command::new(program);
    }
    let mut command = mpirun(ranks);
    command.arg(program);
    command
}

/// Attacks and features have the bits of one process.
fn evaluations() {
    let base = tempfile::tempdir().expect("a folder");
    let run = |ranks: usize, words: &str| {
        let mut command = parallax(ranks);
        command.current_dir(base.path()).args(words.split(' '));
        succeeded(&command.output().expect("it starts"));
    };
    let read = |file: &str| {
        std::fs::read(base.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    };
    let classifier = "--data shapes --arch resnet18 --width 0.0625 --batch-size 32 --steps 2";
    run(
        0,
        &format!("supervised {classifier} --device cpu --out classifier"),
    );
    // 300 images are three batches for two ranks.
    for (ranks, name) in [(0, "one"), (2, "two")] {
        let shared = "--data shapes --device cpu";
        let attack =
            "--model classifier/model.safetensors --eps 0,0.01 --iterations 2 --images 0.3 --save";
        run(
            ranks,
            &format!("attack {shared} {attack} --out attack-{name}"),
        );
        run(
            ranks,
            &format!("embed {shared} --encoder classifier/model.safetensors --out {name}.npy"),
        );
    }
    assert!(read("one.npy") == read("two.npy"), "other features");
    let images = "adversarial.safetensors";
    let [a, b] = ["one", "two"].map(|name| read(&format!("attack-{name}/{images}")));
    assert!(a == b, "other images");
    let [a, b] = ["one", "two"].map(|name| -> serde_json::Value {
        let summary = read(&format!("attack-{name}/summary.json"));
        let summary: serde_json::Value = serde_json::from_slice(&summary).expect("a summary");
        summary["curve"].clone()
    });
    assert_eq!(a, b);
}

/// Each process takes a part of the jobs.
fn grid() {
    let base = tempfile::tempdir().expect("a folder");
    let words = "reproduce --scale smoke --only claim7 --device cpu --out grid";
    let mut command = parallax(2);
    command.current_dir(base.path()).args(words.split(' '));
    let output = command.output().expect("it starts");
    succeeded(&output);
    let lines = String::from_utf8_lossy(&output.stdout);
    for part in ["jobs of part 1/2", "jobs of part 2/2"] {
        assert_eq!(lines.matches(part).count(), 1, "{lines}");
    }
    let jobs = base.path().join("grid/jobs");
    let done = std::fs::read_dir(jobs).expect("run folders").filter(|job| {
        let job = job.as_ref().expect("an entry");
        job.path().join("summary.json").is_file()
    });
    assert_eq!(done.count(), 3);
}

/// A training by the command line: the bits of a run in chunks, an early stop, and a resume on
/// another number of ranks.
fn program() {
    let base = tempfile::tempdir().expect("a folder");
    let train = |ranks: usize, name: &str, options: &str| {
        let mut command = parallax(ranks);
        let settings = "simclr --data shapes --arch resnet18 --width 0.0625 --batch-size 8 --steps 4 --device cpu";
        command.args(settings.split(' ')).args(options.split(' '));
        command.arg("--out").arg(base.path().join(name));
        command.output().expect("it starts")
    };
    let read = |name: &str, file: &str| {
        let path = base.path().join(name).join(file);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let summary = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&read(name, "summary.json")).expect("a summary")
    };
    let weights = "encoder.safetensors";

    succeeded(&train(0, "chunks", "--micro-batch 4"));
    let output = train(2, "ranks", "--sync-batch-norm off");
    succeeded(&output);
    assert!(
        read("chunks", weights) == read("ranks", weights),
        "other bits"
    );
    // Ranks divide the evaluation, and one of them prints.
    assert_eq!(summary("chunks")["knn_top1"], summary("ranks")["knn_top1"]);
    let lines = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        lines.matches("k-nearest-neighbour accuracy").count(),
        1,
        "{lines}"
    );

    succeeded(&train(2, "whole", "--no-knn"));
    let stopped = train(2, "stopped", "--no-knn --time-limit 0.001");
    let errors = String::from_utf8_lossy(&stopped.stderr);
    assert!(errors.contains("stopped by the time limit"), "{errors}");
    assert_eq!(
        errors.matches("stopped by the time limit").count(),
        1,
        "{errors}"
    );
    std::fs::create_dir(base.path().join("other")).expect("a new folder");
    for entry in std::fs::read_dir(base.path().join("stopped")).expect("a run folder") {
        let entry = entry.expect("an entry");
        let to = base.path().join("other").join(entry.file_name());
        std::fs::copy(entry.path(), to).expect("a copy");
    }
    succeeded(&train(2, "stopped", "--no-knn --resume"));
    assert!(
        read("whole", weights) == read("stopped", weights),
        "other bits"
    );
    succeeded(&train(4, "other", "--no-knn --resume"));
    let [a, b] = ["whole", "other"].map(|name| {
        let loss = &summary(name)["final_loss"];
        loss.as_f64().expect("a number")
    });
    assert!(((a - b) / a).abs() < 1e-4, "{a} and {b}");

    let refused = mpirun(2)
        .arg(env!("CARGO_BIN_EXE_parallax"))
        .arg("devices")
        .output();
    let refused = refused.expect("it starts");
    assert!(!refused.status.success());
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(
        errors.contains("rank 0: this command runs on one rank"),
        "{errors}"
    );
}

/// An error that all ranks have is printed by one of them. Settings are checked before data is read.
fn errors_once() {
    let base = tempfile::tempdir().expect("a folder");
    let images = base.path().join("images");
    std::fs::create_dir_all(images.join("a")).expect("a new folder");
    std::fs::write(images.join("a/broken.png"), "no image").expect("a file");
    for (batch, message, code) in [
        ("8", "broken.png", 1),
        (
            "9",
            "the batch of 9 images cannot be divided among 2 ranks",
            2,
        ),
    ] {
        let mut command = parallax(2);
        command.args([
            "simclr", "--data", "folder", "--device", "cpu", "--steps", "2",
        ]);
        command
            .args(["--batch-size", batch, "--data-dir"])
            .arg(&images);
        command.arg("--out").arg(base.path().join("run"));
        let output = command.output().expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert_eq!(errors.matches(message).count(), 1, "{errors}");
        assert!(!base.path().join("run").exists());
    }
}

/// Open MPI forwards SIGUSR1 to the ranks. After SIGTERM, it waits for a time that is an option, sends
/// SIGTERM to the ranks, waits for this time again, kills the ranks that remain, and exits with 1.
fn signals() {
    let base = tempfile::tempdir().expect("a folder");
    for (signal, code) in [("-USR1", 75), ("-TERM", 1)] {
        let folder = base.path().join(signal);
        let train = |options: &[&str]| {
            let mut command = mpirun(2);
            command.args(["--mca", "odls_base_sigkill_timeout", "5"]);
            command.arg(env!("CARGO_BIN_EXE_parallax"));
            let settings = "simclr --data shapes --arch resnet18 --width 0.0625 --batch-size 8 --steps 1000000 --device cpu";
            command.args(settings.split(' ')).args(options);
            command.arg("--out").arg(&folder);
            command
        };
        let mut run = train(&[]);
        run.stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().expect("it starts");
        let metrics = folder.join("metrics.jsonl");
        let started = Instant::now();
        while !std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0) {
            assert!(started.elapsed() < Duration::from_secs(300), "no step ends");
            std::thread::sleep(Duration::from_millis(100));
        }
        let process = run.id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status();
        assert!(sent.expect("kill").success());
        let status = run.wait().expect("it was started");
        assert_eq!(status.code(), Some(code), "{signal}");
        let resumed = train(&["--resume", "--time-limit", "0.001"]).output();
        let resumed = resumed.expect("it starts");
        let errors = String::from_utf8_lossy(&resumed.stderr);
        let words = errors.split("stopped by the time limit of 0.001 s after step ");
        let step = words.last().and_then(|rest| rest.split(' ').next());
        let step: Option<u64> = step.and_then(|step| step.parse().ok());
        assert!(step.is_some_and(|step| step > 1), "{signal}: {errors}");
        assert_eq!(resumed.status.code(), Some(75), "{errors}");
        assert!(!errors.contains("no checkpoint"), "{errors}");
    }
}
