//! Training steps of a classifier: the first one, which compiles every kernel, and those after it.

use std::collections::VecDeque;
use std::time::Instant;

use super::timer::Time;
use super::{Bench, Part, Unit};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::selftest::classifier;
use crate::tensor::DType;

/// Views per step, on hardware and in the small form.
const VIEWS: [&[usize]; 2] = [&[64, 512], &[8]];
/// The width of the networks, likewise.
const WIDTHS: [f64; 2] = [1.0, 0.125];
/// Pixels of a view's side.
const SIDE: usize = 32;
/// Steps before those that are timed; steps that are timed at most; and steps that are recorded
/// while earlier ones run.
const WARM_UP: u64 = 2;
const STEPS: u64 = 10;
const AHEAD: usize = 2;

pub fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let small = usize::from(bench.is_small);
    for (arch, name) in [(Arch::ResNet18, "resnet18"), (Arch::ResNet50, "resnet50")] {
        let config = ResNetConfig {
            arch,
            stem: Stem::Cifar { padding: 1 },
            width: WIDTHS[small],
        };
        for dtype in [DType::F32, DType::F16] {
            if dtype == DType::F16 && !bench.has_f16 {
                continue;
            }
            for &views in VIEWS[small] {
                let name = format!("{name} width {}, {views} views, {dtype}", WIDTHS[small]);
                if bench.has_time(&name) {
                    match steps(bench, &config, views, dtype, &name) {
                        // The next measurement may fit.
                        Err(error @ Error::Device { .. }) if bench.is_open() => {
                            bench.not_measured.push(format!("{name}: {error}"));
                        }
                        measured => measured?,
                    }
                }
            }
        }
    }
    Ok(())
}

fn steps(
    bench: &mut Bench<'_>,
    config: &ResNetConfig,
    views: usize,
    dtype: DType,
    name: &str,
) -> Result<()> {
    let device = bench.device;
    let pixels = views * 3 * SIDE * SIDE;
    let pixels: Vec<f32> = (0..pixels)
        .map(|i| (i % 251) as f32 / 125.0 - 1.0)
        .collect();
    let compiled = || device.as_gpu().map_or(0, |gpu| gpu.compiled().kernels);
    let kernels = compiled();
    let started = Instant::now();
    let mut trainer = classifier(device, config, &pixels, dtype)?;
    let first = trainer.step(0)?;
    trainer.finish(first)?;
    let seconds = started.elapsed().as_secs_f64();
    let time = Time {
        min: seconds,
        median: seconds,
    };
    let mut row = bench.row(Part::Steps, format!("first step, {name}"), time, None);
    row.note = format!("compiled {} kernels", compiled() - kernels);
    bench.add(row);

    for step in 1..WARM_UP {
        let pending = trainer.step(step)?;
        trainer.finish(pending)?;
    }
    let counts = device.as_gpu().map(Gpu::counts);
    let mut pending = VecDeque::new();
    let (mut samples, mut host) = (Vec::new(), 0.0);
    let started = Instant::now();
    let mut last = started;
    for step in WARM_UP..WARM_UP + STEPS {
        let recording = Instant::now();
        pending.push_back(trainer.step(step)?);
        host += recording.elapsed().as_secs_f64();
        while pending.len() > AHEAD
            && let Some(oldest) = pending.pop_front()
        {
            trainer.finish(oldest)?;
            samples.push(last.elapsed().as_secs_f64());
            last = Instant::now();
        }
        if samples.len() > 1 && Instant::now() >= bench.deadline {
            break;
        }
    }
    for oldest in pending {
        trainer.finish(oldest)?;
        samples.push(last.elapsed().as_secs_f64());
        last = Instant::now();
    }
    let steps = samples.len() as f64;
    // The mean, because the times of single steps depend on when they are read.
    let mean = started.elapsed().as_secs_f64() / steps;
    samples.sort_by(f64::total_cmp);
    let time = Time {
        min: mean,
        median: samples[samples.len() / 2],
    };
    let amount = Some((views as f64, Unit::Views));
    let mut row = bench.row(Part::Steps, format!("step, {name}"), time, amount);
    row.note = format!("peak {} MiB", device.memory().peak >> 20);
    if let (Some(gpu), Some(before)) = (device.as_gpu(), counts) {
        let counts = gpu.counts().since(before);
        row.note += &format!(
            ", {:.0} launches, {:.1} ms on the host",
            counts.dispatches as f64 / steps,
            1e3 * host / steps
        );
    }
    bench.add(row);
    Ok(())
}
