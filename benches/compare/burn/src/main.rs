//! Times what `examples/operations.rs` and `examples/supervised_step.rs` time, with burn on wgpu's
//! first adapter of the kind CPU (llvmpipe if Mesa's software Vulkan is installed). It does the work
//! once, while burn tunes its kernels, and prints the seconds. Then it reads numbers, repeats the
//! work as often as each number says, and prints the median. Tuning takes minutes, so one process
//! serves a whole comparison.
//!
//! usage: burn-times product|convolution|block|resnet18|resnet50 BATCH

mod network;

use std::error::Error;
use std::time::Instant;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, DeviceKind, Distribution, Int, Tensor};
use network::{Block, ResNet};

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// What is timed, over and over: each call ends when the device has computed.
fn work(name: &str, batch: usize) -> Result<Box<dyn FnMut()>, Box<dyn Error>> {
    let device = Device::wgpu(DeviceKind::Cpu);
    let wait = {
        let device = device.clone();
        move || device.sync().expect("the device computes")
    };
    Ok(match name {
        "product" => {
            let [a, b] = [(); 2].map(|()| random([512, 512], &device));
            Box::new(move || {
                let c = a.clone().matmul(b.clone());
                wait();
                drop(c);
            })
        }
        "convolution" => {
            let x = random([batch, 64, 32, 32], &device);
            let w = random([64, 64, 3, 3], &device);
            Box::new(move || {
                let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
                let y = conv2d(x.clone(), w.clone(), None, options);
                wait();
                drop(y);
            })
        }
        "block" => {
            let device = device.autodiff();
            let block = Block::basic(64, 64, 1, &device);
            let x = random([batch, 64, 32, 32], &device).require_grad();
            Box::new(move || {
                let gradients = block.forward(x.clone()).sum().backward();
                let dx = x.grad(&gradients);
                let dw = GradientsParams::from_grads(gradients, &block);
                wait();
                drop((dx, dw));
            })
        }
        "resnet18" | "resnet50" => {
            let device = device.autodiff();
            let mut model = Some(ResNet::new(name == "resnet50", &device));
            let mut optimizer = AdamConfig::new().init();
            let images = random([batch, 3, 32, 32], &device);
            let labels: Vec<i32> = (0..batch as i32).map(|i| i % 10).collect();
            let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), &device);
            let criterion = CrossEntropyLossConfig::new().init(&device);
            Box::new(move || {
                let before = model.take().expect("each step leaves a model");
                let logits = before.forward(images.clone());
                let loss = criterion.forward(logits, labels.clone());
                let gradients = GradientsParams::from_grads(loss.backward(), &before);
                model = Some(optimizer.step(1e-3, before, gradients));
                loss.into_scalar::<f32>();
                wait();
            })
        }
        _ => return Err(format!("unknown work '{name}'").into()),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, batch] = words.as_slice() else {
        return Err("burn-times product|convolution|block|resnet18|resnet50 BATCH".into());
    };
    let mut work = work(name, batch.parse()?)?;
    let mut timed = || {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    };
    println!("{}", timed());
    for line in std::io::stdin().lines() {
        let repetitions: usize = line?.trim().parse()?;
        let mut seconds: Vec<f64> = (0..repetitions.max(1)).map(|_| timed()).collect();
        seconds.sort_by(f64::total_cmp);
        println!("{}", seconds[seconds.len() / 2]);
    }
    Ok(())
}
