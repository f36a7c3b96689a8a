//! A SimCLR view and one training step, in images/s. Each image of a step gives two views.
//!
//! `PARALLAX_BENCH_DEVICE` is cpu (the default), cpu-without-winograd, or a part of an adapter's
//! name. On an adapter, `PARALLAX_BENCH_VARIANT` forces one variant of products and convolutions
//! (plain, tiled64x64, tiled64x128 or tiled128x128).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parallax::augment::{ImageStore, SimClrAugmentation, ViewKey};
use parallax::data::{self, DataKind, Dataset};
use parallax::device::Cpu;
use parallax::device::gpu::variants::Variant;
use parallax::device::gpu::{AdapterChoice, GpuOptions};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrSettings};
use parallax::train::Trainer;
use parallax::{Device, Result};

/// The one variant of products and convolutions to run, if one is named.
fn variant() -> Option<Variant> {
    let name = std::env::var("PARALLAX_BENCH_VARIANT").ok()?;
    Some(
        name.parse()
            .expect("PARALLAX_BENCH_VARIANT names a variant"),
    )
}

fn device() -> Device {
    match std::env::var("PARALLAX_BENCH_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Device::cpu(),
        Ok("cpu-without-winograd") => Cpu::without_winograd().into(),
        Ok(name) => Device::open_gpu(GpuOptions {
            adapter: AdapterChoice::Named(name.to_string()),
            variant: variant(),
            ..GpuOptions::default()
        })
        .expect("PARALLAX_BENCH_DEVICE names an adapter that runs PARALLAX_BENCH_VARIANT"),
    }
}

fn shapes() -> Dataset {
    data::load(DataKind::Shapes, None, 0).expect("shapes are drawn")
}

/// Draws and makes one view of 128 images; waits for its pixels.
fn view(c: &mut Criterion) {
    let device = device();
    let dataset = shapes();
    let split = dataset.pretraining();
    let store = ImageStore::of(&device, split).expect("the images fit");
    let augmentation = SimClrAugmentation::sound(32);
    let samples: Vec<u32> = (0..128).collect();
    let mut step = 0;
    let mut make = || -> Result<Vec<f32>> {
        let images = store.gather(&samples)?;
        let key = ViewKey {
            seed: 0,
            step,
            view: 0,
        };
        step += 1;
        let parameters = augmentation.draw(key, &samples, split.height, split.width);
        augmentation.apply(&device, &images, &parameters)?.to_vec()
    };
    let mut group = c.benchmark_group("view");
    group.throughput(Throughput::Elements(128));
    group.bench_function("128 images, 32x32", |bench| {
        bench.iter(|| black_box(make().expect("the views fit")));
    });
}

/// Views, forward, backward and Adam at full width; waits for the loss.
fn step(c: &mut Criterion) {
    let dataset = shapes();
    let mut group = c.benchmark_group("training step");
    group.sample_size(10);
    for (arch, batch_size) in [(Arch::ResNet18, 8), (Arch::ResNet50, 4)] {
        let device = device();
        let encoder = ResNetConfig {
            arch,
            stem: Stem::Cifar { padding: 1 },
            width: 1.0,
        };
        let settings =
            SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0);
        let optimization = settings.optimization;
        let network = simclr::network(&settings, &device).expect("memory suffices");
        let objective =
            SimClr::new(settings, dataset.pretraining(), &device).expect("the settings fit");
        let mut training = Trainer::new(network, optimization, objective).expect("memory suffices");
        let mut number = 0;
        group.throughput(Throughput::Elements(batch_size as u64));
        group.bench_function(format!("{arch:?}, {batch_size} images"), |bench| {
            bench.iter(|| {
                let step = training.step(number).expect("the step fits");
                number += 1;
                black_box(training.finish(step).expect("the loss is finite"))
            });
        });
    }
}

criterion_group!(benches, view, step);
criterion_main!(benches);
