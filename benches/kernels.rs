//! Kernels at ResNet shapes, with throughput in FLOP/s (a multiply-add is two) or bytes/s.
//!
//! `PARALLAX_BENCH_DEVICE` is cpu (the default), cpu-without-winograd, or a part of an adapter's
//! name. On an adapter, `PARALLAX_BENCH_VARIANT` forces one variant of products and convolutions
//! (plain, tiled64x64, tiled64x128 or tiled128x128).

use std::hint::black_box;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use parallax::device::Cpu;
use parallax::device::gpu::variants::Variant;
use parallax::device::gpu::{AdapterChoice, GpuOptions};
use parallax::nn::{Arch, Module, ResNet, ResNetConfig, Stem};
use parallax::ops::conv2d::ConvGeometry;
use parallax::ops::{
    Activation, AdamStep, AdamUpdate, BatchNorm, BatchNormStatistics, ChannelNorm, Conv2d,
    Conv2dDw, Conv2dDx, Conv2dOptions, Gemm, L2Normalize, NtXent, NtXentBackward, Slice,
    transposed,
};
use parallax::philox::Philox;
use parallax::{DType, Device, Result, Tensor};

mod textbook;

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

fn random(device: &Device, shape: &[usize]) -> Tensor {
    let mut rng = Philox::new(1, [0; 3]);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.uniform(-1.0, 1.0))
        .collect();
    Tensor::from_slice(&values, shape, device).expect("the shape fits its values")
}

/// Waits for the first number of `y`.
fn wait(y: Result<Tensor>) {
    let first = || {
        let y = y?;
        let (x, start, count) = (&y.reshape(&[y.len()])?, 0, 1);
        y.device().run(Slice { x, start, count })?.to_vec::<f32>()
    };
    black_box(first().expect("the arguments fit and the kernel ran"));
}

fn gemm(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group("gemm");
    for n in [512, 1024] {
        let (a, b) = (random(&device, &[n, n]), random(&device, &[n, n]));
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
        group.bench_function(n.to_string(), |bench| {
            bench.iter(|| wait(device.run(Gemm::new(&a, &b))));
        });
    }
}

/// The product of 512 x 512 x 512 beside a textbook's kernel on the same adapter. The two take
/// turns, so that other work of the machine affects both. Prints the medians and their ratio: of
/// single runs, before which the caches hold the other's code and numbers, and of several runs in a
/// row.
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
        let product = device.run(Gemm::new(&a, &b)).expect("it fits");
        wait(Ok(product.clone()));
        product
    };
    let [left, right] = [&a, &b].map(|x| x.to_vec::<f32>().expect("it was uploaded"));
    let textbook = textbook::Textbook::new(&name, n, &left, &right);
    // The first run compiles.
    textbook.run();
    let product = own().to_vec::<f32>().expect("the kernel ran");
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
        let options = Conv2dOptions {
            stride,
            padding: kernel / 2,
        };
        let (x_shape, w_shape) = ([16, i, size, size], [o, i, kernel, kernel]);
        let geometry = ConvGeometry::new(x_shape, w_shape, options).expect("it fits");
        let (x, w) = (&random(&device, &x_shape), &random(&device, &w_shape));
        let dy = &random(&device, &geometry.y_shape());
        let name = format!("{i}-{o} {size}x{size} {kernel}x{kernel}/{stride}");
        group.throughput(Throughput::Elements(geometry.flops()));
        group.bench_function(format!("forward {name}"), |bench| {
            bench.iter(|| wait(device.run(Conv2d { x, w, options })));
        });
        group.bench_function(format!("dx {name}"), |bench| {
            bench.iter(|| {
                wait(device.run(Conv2dDx {
                    dy,
                    w,
                    x_shape,
                    options,
                }))
            });
        });
        group.bench_function(format!("dw {name}"), |bench| {
            bench.iter(|| {
                wait(device.run(Conv2dDw {
                    dy,
                    x,
                    w_shape,
                    options,
                }))
            });
        });
    }
}

fn batch_norm(c: &mut Criterion) {
    let device = device();
    let x = &random(&device, &[64, 64, 32, 32]);
    let (gamma, beta) = (random(&device, &[64]), random(&device, &[64]));
    let mut group = c.benchmark_group("batch_norm");
    // x is read for the mean, for the variance and for the result, and the result is written.
    group.throughput(Throughput::Bytes(4 * 4 * x.len() as u64));
    group.bench_function("training forward 64x64x32x32", |bench| {
        bench.iter(|| {
            let norm = ChannelNorm {
                statistics: device.run(BatchNormStatistics { x }).expect("it fits"),
                gamma: gamma.clone(),
                beta: beta.clone(),
                eps: 1e-5,
            };
            wait(device.run(BatchNorm {
                x,
                norm: &norm,
                activation: Activation::Relu,
            }));
        });
    });
}

/// Random rows `[n, d]` of length 1.
fn unit_rows(device: &Device, n: usize, d: usize) -> Tensor {
    let (x, eps) = (&random(device, &[n, d]), 1e-12);
    device.run(L2Normalize { x, eps }).expect("it fits").y
}

/// The gradient of the loss of `z`, after its forward pass.
fn nt_xent_gradient(dloss: &Tensor, z: &Tensor) -> Result<Tensor> {
    let (device, temperature) = (z.device(), 0.5);
    let forward = device.run(NtXent { z, temperature })?;
    device.run(NtXentBackward {
        dloss,
        z,
        temperature,
        log_sum_exp: &forward.log_sum_exp,
    })
}

fn nt_xent(c: &mut Criterion) {
    let device = device();
    let (n, d) = (1024, 128);
    let z = &unit_rows(&device, n, d);
    let dloss = &Tensor::from_slice(&[1.0f32], &[1], &device).expect("one number");
    let mut group = c.benchmark_group("nt_xent");
    group.throughput(Throughput::Elements(3 * 2 * (n * n * d) as u64));
    group.bench_function("forward and backward 1024x128", |bench| {
        bench.iter(|| wait(nt_xent_gradient(dloss, z)));
    });
}

/// Benches `run` under `name` and returns the median of its seconds, or `None` if a filter leaves
/// it out.
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

/// The largest batch of the literature, 2N = 16,384, beside the three products that the loss
/// contains: the similarities in the forward pass, the same in the backward pass, and probabilities
/// times embeddings. The products are computed in slices of rows, so that neither side stores a 2N
/// x 2N matrix. Prints the ratio of the medians.
fn nt_xent_large(c: &mut Criterion) {
    let device = device();
    let (n, d, rows) = (16_384, 128, 2_048);
    let z = &unit_rows(&device, n, d);
    let dloss = &Tensor::from_slice(&[1.0f32], &[1], &device).expect("one number");
    let mut group = c.benchmark_group("nt_xent_large");
    group.sample_size(10);
    group.throughput(Throughput::Elements(3 * 2 * (n * n * d) as u64));
    let loss = median(&mut group, "forward and backward 16384x128", || {
        wait(nt_xent_gradient(dloss, z));
    });
    let products = median(&mut group, "its three products", || {
        for first in (0..n).step_by(rows) {
            let (x, start, count) = (z, first, rows);
            let part = device.run(Slice { x, start, count }).expect("rows of z");
            let similarities = || device.run(Gemm::new(&part, transposed(z)));
            similarities().expect("it fits");
            let similarities = similarities().expect("it fits");
            wait(device.run(Gemm::new(&similarities, z)));
        }
    });
    if let (Some(loss), Some(products)) = (loss, products) {
        println!(
            "nt_xent_large: {loss:.2} s, {:.2} times its three products ({products:.2} s)",
            loss / products
        );
    }
}

/// Adam over the parameters of a ResNet-50, one call per parameter as in a training step, and over
/// one tensor of as many elements: the saving of a single dispatch. Prints both times, and the
/// host's share of the first.
fn adam(c: &mut Criterion) {
    let device = device();
    let config = ResNetConfig {
        arch: Arch::ResNet50,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let lengths: Vec<usize> = {
        let network = ResNet::new(&config, 0, &device).expect("it fits");
        network.parameters().iter().map(|p| p.value.len()).collect()
    };
    let all: usize = lengths.iter().sum();
    let zeros = |len: usize| Tensor::zeros(&[len], DType::F32, &device).expect("it fits");
    let tensors = |lengths: &[usize]| -> Vec<[Tensor; 4]> {
        lengths
            .iter()
            .map(|&len| [(); 4].map(|()| zeros(len)))
            .collect()
    };
    let gate = Tensor::zeros(&[1], DType::U32, &device).expect("one number");
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
            let updated = device.run(AdamUpdate {
                step: options,
                parameter,
                gradient,
                first_moment: first,
                second_moment: second,
                gate: Some(&gate),
            });
            updated.expect("the shapes are alike");
        }
        called = start.elapsed().as_secs_f64();
        wait(Ok(tensors[0][0].clone()));
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
