//! Kernels at ResNet shapes, with throughput in FLOP/s (a multiply-add is two) or bytes/s. `PARALLAX_BENCH_DEVICE`
//! names the device: cpu where it is not set, cpu-without-winograd, else a part of an adapter's name; on one,
//! `PARALLAX_BENCH_VARIANT` forces one variant of products and convolutions (plain, staged, ...).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use parallax::device::cpu::CpuDevice;
use parallax::device::gpu::{AdapterChoice, GpuDevice, GpuOptions};
use parallax::device::kernels::{Activation, AdamStep, ChannelNorm, Gemm};
use parallax::device::philox::Philox;
use parallax::device::shapes::{self, Conv2d};
use parallax::device::variants::Variant;
use parallax::device::{read_f32, upload_f32};
use parallax::nn::{Arch, ResNet, ResNetConfig, Stem};
use parallax::{DType, Device, Tensor};

mod textbook;

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

fn random(device: &Device, shape: &[usize]) -> Tensor {
    let mut rng = Philox::new(1, [0; 3]);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.uniform(-1.0, 1.0))
        .collect();
    upload_f32(device, &values, shape).expect("the shape fits its values")
}

/// Waits until the device has made `y`, by its first number.
fn wait(device: &Device, y: &Tensor) {
    let first = y.reshape(&[y.len()]).and_then(|y| device.slice(&y, 0, 1));
    black_box(read_f32(device, &first.expect("y has an element")).expect("the kernel ran"));
}

fn gemm(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group("gemm");
    for n in [512, 1024] {
        let (a, b) = (random(&device, &[n, n]), random(&device, &[n, n]));
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
        group.bench_function(n.to_string(), |bench| {
            bench.iter(|| {
                wait(
                    &device,
                    &device.gemm(Gemm::default(), &a, &b).expect("it fits"),
                )
            });
        });
    }
}

/// The product of 512 x 512 x 512 beside a textbook's kernel on the same adapter, in turn, so that what else the
/// machine does meets both; prints the medians and their ratio, of single runs, each of which finds the other's code
/// and numbers in the caches, and of several runs on end.
fn gemm_beside_a_textbook(_: &mut Criterion) {
    let Ok(name) = std::env::var("PARALLAX_BENCH_DEVICE") else {
        return;
    };
    if name.starts_with("cpu") {
        return;
    }
    const ROUNDS: usize = 9;
    let device = device();
    let n = 512;
    let (a, b) = (random(&device, &[n, n]), random(&device, &[n, n]));
    let own = || {
        let product = device.gemm(Gemm::default(), &a, &b).expect("it fits");
        wait(&device, &product);
        product
    };
    let [left, right] = [&a, &b].map(|x| read_f32(&device, x).expect("it was uploaded"));
    let textbook = textbook::Textbook::new(&name, n, &left, &right);
    // The first run compiles.
    textbook.run();
    let product = read_f32(&device, &own()).expect("the kernel ran");
    for (x, y) in product.iter().zip(textbook.first_row()) {
        assert!(
            (x - y).abs() < 1e-3,
            "{x} by the library, {y} by the textbook"
        );
    }
    for runs in [1, 8] {
        let timed = |run: &dyn Fn()| {
            let start = Instant::now();
            (0..runs).for_each(|_| run());
            start.elapsed().as_secs_f64() / f64::from(runs)
        };
        let mut seconds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            seconds[0].push(timed(&|| textbook.run()));
            seconds[1].push(timed(&|| drop(own())));
        }
        let [theirs, own] = seconds.map(|mut all| {
            all.sort_by(f64::total_cmp);
            2e-9 * (n * n * n) as f64 / all[ROUNDS / 2]
        });
        println!(
            "gemm/512 beside a textbook's kernel, {runs} on end: {own:.1} and {theirs:.1} GFLOP/s, {:.1} times as fast",
            own / theirs
        );
    }
}

fn conv2d(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group("conv2d");
    // Channels in, channels out, side of the image, kernel, stride.
    for [i, o, size, kernel, stride] in [
        [64, 64, 32, 3, 1],
        [64, 128, 32, 3, 2],
        [256, 256, 8, 3, 1],
        [512, 512, 4, 3, 1],
        [256, 64, 32, 1, 1],
    ] {
        let conv = Conv2d {
            stride,
            padding: kernel / 2,
        };
        let (x_shape, w_shape) = ([16, i, size, size], [o, i, kernel, kernel]);
        let geometry = shapes::conv2d("conv2d", x_shape, w_shape, conv).expect("it fits");
        let (x, w) = (random(&device, &x_shape), random(&device, &w_shape));
        let dy = random(&device, &geometry.y_shape());
        let name = format!("{i}-{o} {size}x{size} {kernel}x{kernel}/{stride}");
        group.throughput(Throughput::Elements(geometry.flops()));
        group.bench_function(format!("forward {name}"), |bench| {
            bench.iter(|| wait(&device, &device.conv2d(&x, &w, conv).expect("it fits")));
        });
        group.bench_function(format!("dx {name}"), |bench| {
            bench.iter(|| {
                wait(
                    &device,
                    &device.conv2d_dx(&dy, &w, x_shape, conv).expect("it fits"),
                )
            });
        });
        group.bench_function(format!("dw {name}"), |bench| {
            bench.iter(|| {
                wait(
                    &device,
                    &device.conv2d_dw(&dy, &x, w_shape, conv).expect("it fits"),
                )
            });
        });
    }
}

fn batch_norm(c: &mut Criterion) {
    let device = device();
    let x = random(&device, &[64, 64, 32, 32]);
    let (gamma, beta) = (random(&device, &[64]), random(&device, &[64]));
    let mut group = c.benchmark_group("batch_norm");
    // Read for the mean, for the variance and for the result, which is written.
    group.throughput(Throughput::Bytes(4 * 4 * x.len() as u64));
    group.bench_function("training forward 64x64x32x32", |bench| {
        bench.iter(|| {
            let norm = ChannelNorm {
                statistics: device.batch_norm_statistics(&x).expect("it fits"),
                gamma: gamma.clone(),
                beta: beta.clone(),
                eps: 1e-5,
            };
            let y = device.batch_norm(&x, &norm, Activation::Relu);
            wait(&device, &y.expect("it fits"));
        });
    });
}

fn nt_xent(c: &mut Criterion) {
    let device = device();
    let (n, d) = (1024, 128);
    let z = device
        .l2_normalize(&random(&device, &[n, d]), 1e-12)
        .expect("it fits")
        .y;
    let dloss = upload_f32(&device, &[1.0], &[1]).expect("one number");
    let mut group = c.benchmark_group("nt_xent");
    group.throughput(Throughput::Elements(3 * 2 * (n * n * d) as u64));
    group.bench_function("forward and backward 1024x128", |bench| {
        bench.iter(|| {
            let forward = device.nt_xent(&z, 0.5).expect("it fits");
            wait(
                &device,
                &device
                    .nt_xent_backward(&dloss, &z, 0.5, &forward)
                    .expect("it fits"),
            );
        });
    });
}

/// Benches `run` under `name` and returns the median of its seconds; nothing where a filter leaves it out.
fn median(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut run: impl FnMut(),
) -> Option<f64> {
    let mut seconds = Vec::new();
    group.bench_function(name, |bench| {
        bench.iter_custom(|rounds| {
            let start = Instant::now();
            (0..rounds).for_each(|_| run());
            let taken = start.elapsed();
            seconds.push(taken.as_secs_f64() / rounds as f64);
            taken
        });
    });
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

/// The largest batch of the literature, 2N = 16,384, beside the three products that it contains (similarities forward,
/// the same again backward, probabilities times embeddings), in slices of rows so that neither holds a 2N x 2N matrix;
/// prints the ratio of their medians.
fn nt_xent_large(c: &mut Criterion) {
    let device = device();
    let (n, d, rows) = (16_384, 128, 2_048);
    let z = device
        .l2_normalize(&random(&device, &[n, d]), 1e-12)
        .expect("it fits")
        .y;
    let dloss = upload_f32(&device, &[1.0], &[1]).expect("one number");
    let mut group = c.benchmark_group("nt_xent_large");
    group.sample_size(10);
    group.throughput(Throughput::Elements(3 * 2 * (n * n * d) as u64));
    let loss = median(&mut group, "forward and backward 16384x128", || {
        let forward = device.nt_xent(&z, 0.5).expect("it fits");
        let dz = device.nt_xent_backward(&dloss, &z, 0.5, &forward);
        wait(&device, &dz.expect("it fits"));
    });
    let transposed = Gemm {
        transpose_b: true,
        ..Gemm::default()
    };
    let products = median(&mut group, "its three products", || {
        for first in (0..n).step_by(rows) {
            let part = device.slice(&z, first, rows).expect("rows of z");
            device.gemm(transposed, &part, &z).expect("it fits");
            let similarities = device.gemm(transposed, &part, &z).expect("it fits");
            let product = device.gemm(Gemm::default(), &similarities, &z);
            wait(&device, &product.expect("it fits"));
        }
    });
    if let (Some(loss), Some(products)) = (loss, products) {
        println!(
            "nt_xent_large: {loss:.2} s, {:.2} times its three products ({products:.2} s)",
            loss / products
        );
    }
}

/// Adam over the parameters of a ResNet-50, one after the other as a step does it, and over one tensor of as
/// many elements: what one dispatch over all parameters would save. Prints the difference, and the host's part of the
/// first.
fn adam(c: &mut Criterion) {
    let device = device();
    let config = ResNetConfig {
        arch: Arch::ResNet50,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let lengths: Vec<usize> = {
        let network = ResNet::new(&device, &config, 0).expect("it fits");
        network.parameters().iter().map(|p| p.value.len()).collect()
    };
    let all: usize = lengths.iter().sum();
    let zeros = |len: usize| device.zeros(&[len], DType::F32).expect("it fits");
    let tensors = |lengths: &[usize]| -> Vec<[Tensor; 4]> {
        lengths
            .iter()
            .map(|&len| [(); 4].map(|()| zeros(len)))
            .collect()
    };
    let gate = device.zeros(&[1], DType::U32).expect("one number");
    let options = AdamStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        gradient_scale: 1.0,
        step: 1,
    };
    let mut called = 0.0;
    let mut step = |tensors: &[[Tensor; 4]]| {
        let start = Instant::now();
        for [parameter, gradient, first, second] in tensors {
            device
                .adam_step(options, parameter, gradient, first, second, Some(&gate))
                .expect("the shapes are alike");
        }
        called = start.elapsed().as_secs_f64();
        wait(&device, &tensors[0][0]);
    };
    let mut group = c.benchmark_group("adam");
    group.throughput(Throughput::Bytes(7 * 4 * all as u64));
    let (one, each) = (tensors(&[all]), tensors(&lengths));
    let single = median(&mut group, "as many elements in one tensor", || step(&one));
    let many = median(&mut group, "every parameter of ResNet-50", || step(&each));
    if let (Some(single), Some(many)) = (single, many) {
        println!(
            "adam: {:.2} ms over {} tensors, {:.2} ms over one; the calls took the host {:.2} ms",
            1e3 * many,
            lengths.len(),
            1e3 * single,
            1e3 * called
        );
    }
}

criterion_group!(
    benches,
    gemm,
    gemm_beside_a_textbook,
    conv2d,
    batch_norm,
    nt_xent,
    nt_xent_large,
    adam
);
criterion_main!(benches);
