//! Times supervised training steps on random images, for a comparison with another program: forward
//! pass, backward pass and Adam. Prints the seconds of each step after the first, one per line. At
//! the end, prints the peak of the tensors' memory and, on Linux, of the process's resident set to
//! stderr.
//!
//! `cargo run --release --example supervised_step -- ARCH BATCH STEPS [DEVICE [OPTION]...]`
//!
//! - ARCH is resnet18, resnet34 or resnet50; DEVICE is cpu or a part of an adapter's name
//! - `recompute`: the backward pass computes the blocks again
//! - `f16`: activations are f16
//! - `profile`: the last step is recorded, and a table of its kernels is printed

use std::time::Instant;

use parallax::autograd::{PassOptions, Tape};
use parallax::device::Gpu;
use parallax::nn::{Arch, Linear, Module, ResNet, ResNetConfig, Stem};
use parallax::optim::{Optimizer, OptimizerOptions};
use parallax::philox::Philox;
use parallax::runs::profile::{Phases, Profile, rows};
use parallax::train::{StepGradients, whole_batch};
use parallax::{DType, Device, Error, Result, Tensor};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = || {
        Error::usage(
            "supervised_step ARCH BATCH STEPS [DEVICE [recompute] [f16] [profile]], for example resnet50 32 5 cpu; a \
             profile takes two steps or more",
        )
    };
    let [arch, batch, steps, rest @ ..] = words.as_slice() else {
        return Err(usage());
    };
    let arch: Arch = arch.parse()?;
    let batch: usize = batch.parse().map_err(|_| usage())?;
    let steps: usize = steps.parse().map_err(|_| usage())?;
    let name = rest.first().map_or("cpu", String::as_str);
    let (mut options, mut profile) = (PassOptions::default(), false);
    for word in rest.iter().skip(1) {
        match word.as_str() {
            "recompute" => options.recompute = true,
            "f16" => (options.activations, options.loss_scale) = (DType::F16, 1024.0),
            "profile" if steps >= 2 => profile = true,
            _ => return Err(usage()),
        }
    }
    let device = Device::open(name)?;
    let before = resident();

    let config = ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let encoder = ResNet::new(&config, 0, &device)?;
    let head = Linear::new("fc", encoder.feature_width(), 10, 0, &device)?;
    let network = (encoder, head);
    let mut optimizer = Optimizer::new(&network.parameters(), OptimizerOptions::adam(0.0))?;
    let mut rng = Philox::new(0, [0; 3]);
    let pixels: Vec<f32> = (0..batch * 3 * 32 * 32).map(|_| rng.normal()).collect();
    let images = Tensor::from_slice(&pixels, &[batch, 3, 32, 32], &device)?;
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let labels = Tensor::from_slice(&labels, &[batch], &device)?;
    let mut objective = |network: &(ResNet, Linear), tape: &Tape, _| {
        network
            .forward(&tape.constant(&images))?
            .cross_entropy(&labels)
    };
    let counted = || device.as_gpu().map(Gpu::counts);
    let mut times = Vec::new();
    let mut counts = Vec::new();
    for step in 0..=steps {
        if profile && step == steps {
            device.start_recording();
        }
        let before = counted();
        let started = Instant::now();
        let StepGradients {
            loss,
            gradients,
            updates,
        } = whole_batch(&mut objective, &network, (&device, options), step as u64)?;
        optimizer.step(1e-3, &gradients, None)?;
        for update in updates {
            update.apply(&device, None)?;
        }
        loss.to_vec::<f32>()?;
        times.push(started.elapsed().as_secs_f64());
        let now = counted();
        counts.extend(now.zip(before).map(|(now, before)| now.since(before)));
        // The first step also allocates memory and compiles pipelines.
        if step > 0 {
            println!("{}", times[step]);
        }
    }
    if profile {
        let recording = device.stop_recording()?;
        let steps = steps as u64;
        let (plain, last) = (&times[1..times.len() - 1], times[times.len() - 1]);
        let profile = Profile {
            device: name.to_string(),
            phases: Phases {
                warm_up: 0..1,
                plain: 1..steps,
                recorded: steps..steps + 1,
            },
            clock: recording.clock,
            rows: rows(&recording),
            plain_seconds: plain.iter().sum::<f64>() / plain.len() as f64,
            recorded_seconds: last,
            counts,
            blocks: device.as_gpu().map_or(Vec::new(), Gpu::blocks),
        };
        print!("{profile}");
    }
    eprintln!("peak {} MiB", device.memory().peak >> 20);
    if let (Some([before, _]), Some([_, most])) = (before, resident()) {
        eprintln!("resident set {} MiB over the start", (most - before) >> 10);
    }
    Ok(())
}

/// Current and peak KiB of the process's resident set, on Linux.
fn resident() -> Option<[u64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some([kib("VmRSS:")?, kib("VmHWM:")?])
}
