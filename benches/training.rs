//! A SimCLR view, a residual block and one training step, in images/s: a step's images each give two views.
//! `PARALLAX_BENCH_DEVICE` names the device: cpu where it is not set, cpu-without-winograd, else a part of an adapter's name; on one,
//! `PARALLAX_BENCH_VARIANT` forces one variant of products and convolutions (plain, staged, ...).

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parallax::augment::{ImageStore, SimClrAugmentation, ViewKey};
use parallax::autograd::{self, Affine, Tape};
use parallax::data::{self, DataKind, Dataset};
use parallax::device::cpu::CpuDevice;
use parallax::device::gpu::{AdapterChoice, GpuDevice, GpuOptions};
use parallax::device::kernels::Activation;
use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Conv2d};
use parallax::device::variants::Variant;
use parallax::device::{read_f32, upload_f32};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::pretext::Protocol;
use parallax::pretext::simclr::{SimClr, SimClrSettings};
use parallax::train::Trainer;
use parallax::{Device, Result, Tensor};

/// The one variant of products and convolutions to run, where one is named.
fn variant() -> Option<Variant> {
    let name = std::env::var("PARALLAX_BENCH_VARIANT").ok()?;
    Some(
        name.parse()
            .expect("PARALLAX_BENCH_VARIANT names a variant"),
    )
}

fn device() -> Device {
    match std::env::var("PARALLAX_BENCH_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Arc::new(CpuDevice::new()),
        Ok("cpu-without-winograd") => Arc::new(CpuDevice::without_winograd()),
        Ok(name) => Arc::new(
            GpuDevice::open(GpuOptions {
                adapter: AdapterChoice::Named(name.to_string()),
                variant: variant(),
                ..GpuOptions::default()
            })
            .expect("PARALLAX_BENCH_DEVICE names an adapter that runs PARALLAX_BENCH_VARIANT"),
        ),
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
    let store = ImageStore::new(&device, &split.images, [3, split.height, split.width])
        .expect("the images fit");
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
        let views = augmentation.apply(&device, &images, &parameters)?;
        read_f32(&device, &views)
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
        let objective =
            SimClr::new(&device, settings, dataset.pretraining()).expect("the settings fit");
        let mut training = Trainer::new(&device, objective, optimization).expect("memory suffices");
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

/// A residual block of two 3x3 convolutions of 64 channels with batch norm, on 16 images of 32x32: forward, and the
/// gradients of its input and its parameters. FLOPs are those of the convolutions.
fn residual_block(c: &mut Criterion) {
    let device = device();
    let mut rng = Philox::new(1, [0; 3]);
    let mut random = |shape: &[usize], scale: f32| {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| scale * rng.normal())
            .collect();
        upload_f32(&device, &values, shape).expect("the shape fits its values")
    };
    let (n, channels, size) = (16, 64, 32);
    let x_shape = [n, channels, size, size];
    let w_shape = [channels, channels, 3, 3];
    let (x, dy) = (random(&x_shape, 1.0), random(&x_shape, 1.0));
    let weights = [(); 2].map(|()| random(&w_shape, 0.06));
    let numbers = [(); 4].map(|()| random(&[channels], 1.0));
    let conv = Conv2d {
        stride: 1,
        padding: 1,
    };
    let flops = shapes::conv2d("conv2d", x_shape, w_shape, conv)
        .expect("it fits")
        .flops();
    let pass = || -> Result<Tensor> {
        let tape = Tape::new(&device);
        let input = tape.leaf(&x);
        let [first, second] = [&weights[0], &weights[1]].map(|w| tape.leaf(w));
        let [gamma1, beta1, gamma2, beta2] = [0, 1, 2, 3].map(|i| tape.leaf(&numbers[i]));
        let affine = |gamma, beta| Affine {
            gamma,
            beta,
            eps: 1e-5,
        };
        let y = autograd::conv2d(&tape, &input, &first, conv)?;
        let (y, _) =
            autograd::batch_norm_training(&tape, &y, affine(&gamma1, &beta1), Activation::Relu)?;
        let y = autograd::conv2d(&tape, &y, &second, conv)?;
        let shortcut = Activation::AddRelu(&input);
        let (y, _) = autograd::batch_norm_training(&tape, &y, affine(&gamma2, &beta2), shortcut)?;
        let gradients = tape.backward_from(&y, &dy)?;
        let dx = gradients.of(&x).expect("x is a leaf").clone();
        device.slice(&dx.reshape(&[dx.len()])?, 0, 1)
    };
    let mut group = c.benchmark_group("residual block");
    // Two convolutions, each with its two gradients.
    group.throughput(Throughput::Elements(2 * 3 * flops));
    group.bench_function("64 channels, 32x32, 16 images", |bench| {
        bench.iter(|| {
            let first = pass().expect("it fits");
            black_box(read_f32(&device, &first).expect("the kernels ran"))
        });
    });
}

criterion_group!(benches, view, residual_block, step);
criterion_main!(benches);
