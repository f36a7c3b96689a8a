//! The profile of a run is correct, and recording it changes no result.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use parallax::augment::RandomBlur;
use parallax::autograd::PassOptions;
use parallax::data::{self, DataKind};
use parallax::device::gpu::StreamCounts;
use parallax::device::gpu::variants::{TileSize, Variant};
use parallax::device::profiler::{Clock, Recording};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::ops::{Add, Conv2d, Conv2dDw, Conv2dDx, Conv2dOptions, Gemm, Linear, transposed};
use parallax::optim::OptimizerOptions;
use parallax::runs::profile::{Phases, rows};
use parallax::train::Trainer;
use parallax::{DType, Device, Tensor};
use serde_json::Value;

mod class_folders;
// This test uses some of the devices.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;
mod process;
use class_folders::place;
use process::{good, json, refused};

/// The arguments of a small training on images of a folder, whose run folder is `out`.
fn small<'a>(command: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = [
        command,
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--width",
        "0.125",
        "--batch-size",
        "8",
        "--out",
        out,
    ];
    common.iter().chain(more).copied().collect()
}

/// Losses and learning rates of a run, as its file has them.
fn metrics(run: &Path) -> Vec<[String; 2]> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("it was written");
    let values = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        ["loss", "learning_rate"].map(|name| line[name].to_string())
    });
    values.collect()
}

/// The rows of the table: the name of an operation, its milliseconds and its share.
fn table(said: &str) -> Vec<(String, f64, f64)> {
    let lines = said.lines().skip_while(|line| !line.starts_with("kernel "));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let percent = words.iter().position(|&word| word == "%")?;
        let numbers = [percent - 2, percent - 1].map(|at| words[at].parse().expect(line));
        Some((line[..40].trim().to_string(), numbers[0], numbers[1]))
    };
    lines.skip(1).map_while(row).collect()
}

#[test]
fn a_profile_sums_to_its_step_writes_a_trace_and_changes_no_result() {
    let base = place(32, 32);
    let folder = base.path();
    let simclr = ["--no-knn", "--steps", "9"];
    let rotnet = ["--no-knn", "--steps", "4"];
    let supervised = ["--steps", "5"];
    for (command, more, weights, recorded) in [
        ("simclr", &simclr[..], "encoder.safetensors", 6..=8),
        ("rotnet", &rotnet, "encoder.safetensors", 4..=4),
        ("supervised", &supervised, "model.safetensors", 4..=4),
    ] {
        let [plain, profiled] = ["plain", "profiled"].map(|kind| format!("{command}-{kind}"));
        good(folder, &small(command, &plain, more));
        let profile = [more, &["--profile"]].concat();
        let said = good(folder, &small(command, &profiled, &profile));
        let [plain, profiled] = [plain, profiled].map(|run| folder.join(run));

        // The same losses and weights.
        assert_eq!(metrics(&plain), metrics(&profiled), "{command}");
        let [before, after] = [&plain, &profiled].map(|run| fs::read(run.join(weights)).unwrap());
        assert!(before == after, "{command}: profiling changed the weights");
        assert!(!plain.join("profile.json").exists());

        // The rows sum to the step, including the row of the time outside of kernels.
        let table = table(&said);
        let named = |name: &str| table.iter().position(|row| row.0 == name).expect(name);
        let step = named("a step, recorded");
        assert_eq!(named("a step, not recorded"), step + 1, "{said}");
        assert_eq!(named("not in a kernel"), step - 1, "{said}");
        for kernel in ["conv2d 3x3/1", "conv2d_dw 3x3/2", "batch_norm_training"] {
            assert!(named(kernel) < step - 1);
        }
        let sum: f64 = table[..step].iter().map(|row| row.1).sum();
        // Every row is rounded to half a microsecond.
        let rounding = 0.0005 * table.len() as f64;
        assert!((sum - table[step].1).abs() <= rounding, "{sum}: {said}");
        let shares: f64 = table[..step].iter().map(|row| row.2).sum();
        assert!(
            (shares - 100.0).abs() <= 0.05 * table.len() as f64,
            "{said}"
        );
        if table[step - 1].2 > 5.0 {
            assert!(said.contains("\nnot in a kernel: "), "{said}");
        }

        check_trace(&json(&profiled.join("profile.json")), recorded);
    }
    let encoder = "simclr-plain/encoder.safetensors";
    let finetune = "finetune --data folder --data-dir images --batch-size 8 --steps 4 --profile";
    let mut finetune: Vec<&str> = finetune.split(' ').collect();
    finetune.extend(["--encoder", encoder, "--out", "finetune"]);
    assert!(!table(&good(folder, &finetune)).is_empty());
    check_trace(&json(&folder.join("finetune/profile.json")), 4..=4);
}

/// Checks that a trace of the CPU has the fields that its readers require, and that kernels follow
/// one another.
fn check_trace(trace: &Value, recorded: std::ops::RangeInclusive<u64>) {
    let events = trace["traceEvents"].as_array().expect("a list of events");
    let complete: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    let mut steps = Vec::new();
    let mut before = 0.0;
    for event in &complete {
        let number = |field: &str| event[field].as_f64().unwrap_or_else(|| panic!("{event}"));
        let (start, length) = (number("ts"), number("dur"));
        assert!(start >= 0.0 && length >= 0.0, "{event}");
        assert!(
            event["name"].is_string() && event["pid"].is_u64(),
            "{event}"
        );
        match event["cat"].as_str() {
            Some("step") => steps.push(event["name"].as_str().unwrap().to_string()),
            Some("kernel") => {
                // A thousandth of a nanosecond for the arithmetic.
                assert!(start >= before - 1e-6, "{event} begins before {before}");
                before = start + length;
                let arguments = &event["args"];
                let step = arguments["step"].as_u64().expect("the step");
                assert!(recorded.contains(&step), "{event}");
                assert!(arguments["flops"].is_u64() && arguments["bytes"].is_u64());
                assert!(arguments["reads"].is_array() && arguments["writes"].is_array());
            }
            other => panic!("{other:?}: {event}"),
        }
    }
    let expected: Vec<String> = recorded.map(|step| format!("step {step}")).collect();
    assert_eq!(steps, expected);
}

#[test]
fn a_training_that_is_too_short_to_measure_is_refused() {
    let base = place(32, 32);
    for command in ["simclr", "rotnet", "supervised"] {
        let short = small(command, "run", &["--profile", "--steps", "3"]);
        refused(
            base.path(),
            &short,
            2,
            &["--profile", "3 steps", "4 or more"],
        );
        assert!(!base.path().join("run").exists(), "{command} left a folder");
    }
    let phases = Phases::new(10, 14).unwrap();
    assert_eq!(
        [phases.warm_up, phases.plain, phases.recorded],
        [10..12, 12..13, 13..14]
    );
    let phases = Phases::new(0, 1000).unwrap();
    assert_eq!([phases.plain, phases.recorded], [2..5, 5..8]);
}

/// A GPU of these tests, opened once per process.
fn gpu() -> Device {
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| devices::open_gpu(false, None).into())
        .clone()
}

/// A small training, whose settings are first passed to `change`.
fn trainer(
    device: &Device,
    change: impl FnOnce(&mut SimClrSettings),
) -> Trainer<SimClrNetwork, SimClr> {
    let dataset = data::load(DataKind::Shapes, None, 0).unwrap();
    let encoder = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.0625,
    };
    let mut settings = SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, 8, 1e-6, 0);
    change(&mut settings);
    let optimization = settings.optimization;
    let network = simclr::network(&settings, device).unwrap();
    let objective = SimClr::new(settings, dataset.pretraining(), device).unwrap();
    Trainer::new(network, optimization, objective).unwrap()
}

/// The bits of the losses of six steps, of which at most three are recorded and not finished at a
/// time, and the counts of each step. If `records`, the last two steps are recorded by the
/// profiler.
fn six_steps(
    device: &Device,
    records: bool,
) -> (Vec<u32>, Vec<StreamCounts>, Option<(Recording, f64)>) {
    let mut trainer = trainer(device, |_| {});
    let gpu = device.as_gpu().expect("the device is a GPU");
    let (mut pending, mut counts, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let mut started = Instant::now();
    for step in 0..6 {
        if records && step == 4 {
            for step in pending.drain(..) {
                losses.push(trainer.finish(step).unwrap().to_bits());
            }
            started = Instant::now();
            device.start_recording();
        }
        let before = gpu.counts();
        pending.push(trainer.step(step).unwrap());
        counts.push(gpu.counts().since(before));
        if pending.len() > 2 {
            losses.push(trainer.finish(pending.remove(0)).unwrap().to_bits());
        }
    }
    for step in pending {
        losses.push(trainer.finish(step).unwrap().to_bits());
    }
    let recorded = records.then(|| {
        let recording = device.stop_recording().unwrap();
        (recording, started.elapsed().as_secs_f64())
    });
    (losses, counts, recorded)
}

/// The rates of LARS stay on the device, and the weights of a blur are as many in each step.
#[test]
fn lars_and_blur_allocate_nothing_after_the_first_step_and_never_wait() {
    let device: Device = devices::open_gpu(false, None).into();
    let gpu = device.as_gpu().expect("the device is a GPU");
    let mut trainer = trainer(&device, |settings| {
        settings.optimization.optimizer = OptimizerOptions::lars(1e-6);
        settings.augmentation.blur = Some(RandomBlur::default());
    });
    let mut pending = Vec::new();
    for step in 0..5 {
        let before = gpu.counts();
        pending.push(trainer.step(step).unwrap());
        let count = gpu.counts().since(before);
        assert_eq!(count.waits, 0, "step {step}: {count:?}");
        if step > 0 {
            let made = [count.allocations, count.bind_groups];
            assert_eq!(made, [0, 0], "step {step}: {count:?}");
        }
        if pending.len() > 2 {
            trainer.finish(pending.remove(0)).unwrap();
        }
    }
    for step in pending {
        trainer.finish(step).unwrap();
    }
}

#[test]
fn after_the_first_step_a_gpu_allocates_nothing_creates_no_bind_group_and_never_waits() {
    let (losses, counts, recorded) = six_steps(&gpu(), true);
    eprintln!(
        "counts of the first and of the last step: {:?}, {:?}",
        counts[0], counts[5]
    );
    assert!(counts[0].allocations > 0 && counts[0].bind_groups > 0);
    for (step, count) in counts.iter().enumerate() {
        assert!(count.dispatches > 100 && count.submissions > 0, "{count:?}");
        assert_eq!(count.waits, 0, "step {step}: {count:?}");
        if step > 0 {
            assert_eq!(count.dispatches, counts[0].dispatches, "step {step}");
            assert_eq!(
                [count.allocations, count.bind_groups],
                [0, 0],
                "step {step}: {count:?}"
            );
        }
    }

    let (recording, seconds) = recorded.expect("it was recorded");
    check_gpu_recording(&recording, seconds, &counts[4..]);

    // The same losses without a recording.
    let (plain, ..) = six_steps(&devices::gpu(false), false);
    assert_eq!(losses, plain);
}

/// A step of two images. In a large batch, the sums of the tiled weight gradients are split, which
/// adds a dispatch to each of those that write their result directly here. The sums of most other
/// convolutions are not split there, which takes a dispatch from each.
#[test]
fn a_tiled_step_of_resnet50_has_fewer_dispatches_than_a_plain_one() {
    let dispatches = |variant, activations| {
        let device: Device = devices::forced()
            .iter()
            .find(|(forced, _)| *forced == variant)
            .map(|(_, gpu)| gpu.clone().into())
            .expect("every variant has a device");
        let mut trainer = trainer(&device, |settings| {
            settings.encoder.arch = Arch::ResNet50;
            settings.encoder.width = 0.25;
            settings.batch_size = 2;
        });
        let options = PassOptions {
            activations,
            ..PassOptions::default()
        };
        trainer = trainer.with_options(options).unwrap();
        let gpu = device.as_gpu().expect("the device is a GPU");
        device.start_recording();
        let before = gpu.counts();
        let step = trainer.step(0).unwrap();
        let count = gpu.counts().since(before).dispatches;
        trainer.finish(step).unwrap();
        print_histogram(&device.stop_recording().unwrap());
        let before = gpu.counts();
        let step = trainer.step(1).unwrap();
        let later = gpu.counts().since(before);
        trainer.finish(step).unwrap();
        let made = [later.allocations, later.bind_groups];
        assert_eq!(made, [0, 0], "{variant:?}: {later:?}");
        assert_eq!(later.dispatches, count, "{variant:?}");
        count
    };
    let small = Variant::Tiled(TileSize::Small);
    let plain = dispatches(Variant::Plain, DType::F32);
    let tiled = dispatches(small, DType::F32);
    eprintln!("dispatches of a step of ResNet-50: {plain} plain, {tiled} tiled");
    assert!(tiled <= plain * 9 / 10, "{plain} plain, {tiled} tiled");
    assert!(tiled <= 600, "{tiled} dispatches");
    for (name, _) in devices::with_f16([("gpu", gpu())]) {
        let half = dispatches(small, DType::F16);
        eprintln!("the same in f16 on {name}: {half} tiled");
        assert!(half <= 600, "{half} dispatches in f16");
    }
}

/// Prints the number of dispatches of each kernel, largest first.
fn print_histogram(recording: &Recording) {
    let mut counts = BTreeMap::<&str, u64>::new();
    let launched = recording
        .spans
        .iter()
        .filter_map(|span| span.launched.as_deref());
    for kernel in launched {
        *counts.entry(kernel).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(kernel, count)| (std::cmp::Reverse(count), kernel));
    eprintln!("{counts:?}");
}

/// Checks a recording of two steps that took `seconds` in all.
fn check_gpu_recording(recording: &Recording, seconds: f64, counts: &[StreamCounts]) {
    if recording.clock == Clock::Missing {
        assert!(recording.spans.is_empty() && !recording.calls.is_empty());
        return;
    }
    let launched: Vec<&str> = recording
        .spans
        .iter()
        .filter_map(|span| span.launched.as_deref())
        .filter(|kernel| kernel.contains('/'))
        .collect();
    let dispatches: u64 = counts.iter().map(|count| count.dispatches).sum();
    assert_eq!(launched.len() as u64, dispatches, "every dispatch is timed");
    let rows = rows(recording);
    let sum: f64 = rows.iter().map(|row| row.seconds).sum();
    assert!(sum > 0.0 && sum <= seconds, "{sum} s of {seconds} s");
    let dw = rows.iter().find(|row| row.kernel == "conv2d_dw 3x3/1");
    let dw = dw.expect("the network has such a convolution");
    for part in ["/partial", "/reduce"] {
        assert!(
            dw.parts.iter().any(|row| row.kernel.ends_with(part)),
            "{part} is not in {:?}",
            dw.parts
        );
    }
}

#[test]
fn operations_and_bytes_are_those_worked_out_by_hand() {
    let device = Device::cpu();
    let tensor = |shape: &[usize]| {
        let len = shape.iter().product();
        Tensor::from_slice(&vec![0.5f32; len], shape, &device).unwrap()
    };
    let (x, w) = (&tensor(&[2, 3, 8, 8]), &tensor(&[4, 3, 3, 3]));
    let (a, b) = (&tensor(&[7, 5]), &tensor(&[7, 3]));
    let (rows, weight, bias) = (&tensor(&[4, 6]), &tensor(&[3, 6]), &tensor(&[3]));
    device.start_recording();
    let options = Conv2dOptions {
        stride: 2,
        padding: 1,
    };
    let dy = &device.run(Conv2d { x, w, options }).unwrap();
    let dx = Conv2dDx {
        dy,
        w,
        x_shape: [2, 3, 8, 8],
        options,
    };
    let dw = Conv2dDw {
        dy,
        x,
        w_shape: [4, 3, 3, 3],
        options,
    };
    device.run(dx).unwrap();
    device.run(dw).unwrap();
    device.run(Gemm::new(transposed(a), b)).unwrap();
    let linear = Linear {
        x: rows,
        w: weight,
        bias,
    };
    device.run(linear).unwrap();
    device.run(Add { a, b: a }).unwrap();
    let recording = device.stop_recording().unwrap();
    device.run(Add { a, b: a }).unwrap();

    let found: Vec<_> = recording
        .calls
        .iter()
        .map(|call| (call.name, call.work.flops, call.work.bytes))
        .collect();
    // x has 384 elements, w 108 and y 128, of four bytes; each element of y is 27 multiply-adds.
    let convolution = (128 * 27 * 2, 4 * (384 + 108 + 128));
    let expected = [
        ("conv2d", convolution.0, convolution.1),
        ("conv2d_dx", convolution.0, convolution.1),
        ("conv2d_dw", convolution.0, convolution.1),
        // 5 x 3 sums of 7 multiply-adds, of 35 and 21 elements.
        ("gemm", 5 * 3 * 7 * 2, 4 * (35 + 21 + 15)),
        // 4 x 3 sums of 6 multiply-adds and a bias.
        ("linear", 4 * 3 * (6 * 2 + 1), 4 * (24 + 18 + 3 + 12)),
        ("add", 35, 4 * 3 * 35),
    ];
    assert_eq!(found, expected);
    let calls = recording.calls.iter();
    let labels: Vec<_> = calls.map(|call| call.work.label.as_deref()).collect();
    // The window and the stride.
    let window = Some("3x3/2");
    assert_eq!(labels, [window, window, window, None, None, None]);
    assert_eq!(recording.spans.len(), found.len());
    let after = device.stop_recording().unwrap();
    assert!(after.calls.is_empty(), "the recording had ended");
}
