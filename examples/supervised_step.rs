//! Times supervised training steps on made-up images: forward, backward and Adam, ready for a comparison with another
//! program. Prints the seconds of each step after the first, one a line.
//!
//! `cargo run --release --example supervised_step -- resnet18|resnet34|resnet50 BATCH STEPS [cpu|ADAPTER] [recompute]
//! [f16] [profile]`; ADAPTER is a part of an adapter's name; with `recompute` blocks are computed again on the way back,
//! with `f16` activations are stored so, with `profile` the last step is recorded and a table of its kernels printed.
//! Ends with the peak of the tensors' memory and, on Linux, of the process's resident set, on stderr.

use std::sync::Arc;
use std::time::Instant;

use parallax::autograd::{self, Tape};
use parallax::device::cpu::CpuDevice;
use parallax::device::gpu::{AdapterChoice, GpuDevice, GpuOptions};
use parallax::device::philox::Philox;
use parallax::device::profile::ProfiledDevice;
use parallax::device::{read_f32, upload_f32, upload_u32};
use parallax::nn::{Arch, Head, Mode, ResNet, ResNetConfig, Stem};
use parallax::optim::{Optimizer, OptimizerOptions};
use parallax::runs::profile::{Phases, Profile, rows};
use parallax::tensor::DType;
use parallax::{Device, Error, Result};

fn open(name: &str) -> Result<Arc<ProfiledDevice>> {
    if name == "cpu" {
        return Ok(Arc::new(ProfiledDevice::cpu(CpuDevice::new())));
    }
    let device = GpuDevice::open(GpuOptions {
        adapter: AdapterChoice::Named(name.to_string()),
        ..GpuOptions::default()
    })?;
    Ok(Arc::new(ProfiledDevice::gpu(Arc::new(device))))
}

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
    let (mut recompute, mut profile) = (false, false);
    let (mut activations, mut loss_scale) = (DType::F32, 1.0);
    for word in rest.iter().skip(1) {
        match word.as_str() {
            "recompute" => recompute = true,
            "f16" => (activations, loss_scale) = (DType::F16, 1024.0),
            "profile" if steps >= 2 => profile = true,
            _ => return Err(usage()),
        }
    }
    let profiler = open(name)?;
    let device: Device = profiler.clone();
    let before = resident();

    let config = ResNetConfig {
        arch,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let encoder = ResNet::new(&device, &config, 0)?;
    let head = Head::new(&device, encoder.feature_width(), 10, 0)?;
    let mut parameters = encoder.parameters();
    parameters.extend(head.parameters());
    let mut optimizer = Optimizer::new(&device, &parameters, OptimizerOptions::adam(0.0))?;
    let mut rng = Philox::new(0, [0; 3]);
    let pixels: Vec<f32> = (0..batch * 3 * 32 * 32).map(|_| rng.normal()).collect();
    let images = upload_f32(&device, &pixels, &[batch, 3, 32, 32])?;
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let labels = upload_u32(&device, &labels, &[batch])?;
    let mut times = Vec::new();
    let mut counts = Vec::new();
    for step in 0..=steps {
        if profile && step == steps {
            profiler.start();
        }
        let before = profiler.counts();
        let started = Instant::now();
        let tape = Tape::new(&device)
            .recomputing(recompute)
            .with_activations(activations)
            .scaling_loss(loss_scale);
        let features = encoder.forward(&tape, &tape.constant(&images), Mode::Training)?;
        let logits = head.forward(&tape, &features)?;
        let loss = autograd::softmax_cross_entropy(&tape, &logits, &labels)?;
        let gradients = tape.backward(&loss)?;
        optimizer.step(1e-3, &gradients, None)?;
        encoder.commit_running_statistics(None)?;
        read_f32(&device, loss.tensor())?;
        times.push(started.elapsed().as_secs_f64());
        counts.extend(
            profiler
                .counts()
                .zip(before)
                .map(|(now, before)| now.since(before)),
        );
        // The first one also makes buffers and pipelines.
        if step > 0 {
            println!("{}", times[step]);
        }
    }
    if profile {
        let recording = profiler.stop()?;
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
        };
        print!("{profile}");
    }
    eprintln!("peak {} MiB", device.memory().peak >> 20);
    if let (Some([before, _]), Some([_, most])) = (before, resident()) {
        eprintln!("resident set {} MiB over the start", (most - before) >> 10);
    }
    Ok(())
}

/// KiB of the process's memory that is resident now, and that was at most, where Linux tells.
fn resident() -> Option<[u64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some([kib("VmRSS:")?, kib("VmHWM:")?])
}
