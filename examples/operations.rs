//! Times one operation on a device, ready for a comparison with another program: a product of 512 x 512 x 512, a 3x3
//! convolution of 64 channels of 32x32, or a residual block of two of them, forward and backward. Prints the seconds of
//! each repetition after the first, one a line.
//!
//! `cargo run --release --example operations -- product|convolution|block BATCH REPETITIONS [cpu|ADAPTER]`; ADAPTER is a
//! part of an adapter's name.

use std::sync::Arc;
use std::time::Instant;

use parallax::autograd::{self, Affine, Tape, Var};
use parallax::device::cpu::CpuDevice;
use parallax::device::gpu::{AdapterChoice, GpuDevice, GpuOptions};
use parallax::device::kernels::{Activation, Gemm};
use parallax::device::philox::Philox;
use parallax::device::shapes::Conv2d;
use parallax::device::{read_f32, upload_f32};
use parallax::tensor::Tensor;
use parallax::{Device, Error, Result};

/// As the names of the work say: 3x3, and as many pixels out as in.
const CONV: Conv2d = Conv2d {
    stride: 1,
    padding: 1,
};

fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Arc::new(CpuDevice::new()));
    }
    Ok(Arc::new(GpuDevice::open(GpuOptions {
        adapter: AdapterChoice::Named(name.to_string()),
        ..GpuOptions::default()
    })?))
}

/// What is timed, over and over; its result is ready when one of its elements can be read.
type Work = Box<dyn Fn() -> Result<Tensor>>;

fn work(device: Device, name: &str, batch: usize) -> Result<Work> {
    let mut rng = Philox::new(0, [0; 3]);
    let mut random = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        upload_f32(&device, &values, shape)
    };
    Ok(match name {
        "product" => {
            let (a, b) = (random(&[512, 512])?, random(&[512, 512])?);
            Box::new(move || device.gemm(Gemm::default(), &a, &b))
        }
        "convolution" => {
            let (x, w) = (random(&[batch, 64, 32, 32])?, random(&[64, 64, 3, 3])?);
            Box::new(move || device.conv2d(&x, &w, CONV))
        }
        "block" => {
            let x = random(&[batch, 64, 32, 32])?;
            let weights = [random(&[64, 64, 3, 3])?, random(&[64, 64, 3, 3])?];
            let [gamma, beta] = [1.0, 0.0].map(|value| upload_f32(&device, &[value; 64], &[64]));
            let (gamma, beta) = (gamma?, beta?);
            Box::new(move || {
                let tape = Tape::new(&device);
                let input = tape.input(&x);
                let layer = |x: &Var, w: &Tensor, activation: Activation<&Var>| -> Result<Var> {
                    let x = autograd::conv2d(&tape, x, &tape.leaf(w), CONV)?;
                    let affine = Affine {
                        gamma: &tape.leaf(&gamma),
                        beta: &tape.leaf(&beta),
                        eps: 1e-5,
                    };
                    Ok(autograd::batch_norm_training(&tape, &x, affine, activation)?.0)
                };
                let y = layer(&input, &weights[0], Activation::Relu)?;
                let y = layer(&y, &weights[1], Activation::AddRelu(&input))?;
                let loss = autograd::sum(&tape, &y)?;
                let gradients = tape.backward(&loss)?;
                let dx = gradients.of(&x).cloned();
                dx.ok_or_else(|| Error::usage("the block's input has no gradient"))
            })
        }
        _ => {
            return Err(Error::usage(format!(
                "'{name}' is none of product, convolution and block"
            )));
        }
    })
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::usage("operations product|convolution|block BATCH REPETITIONS [DEVICE]");
    let [name, batch, repetitions, rest @ ..] = words.as_slice() else {
        return Err(usage());
    };
    let batch: usize = batch.parse().map_err(|_| usage())?;
    let repetitions: usize = repetitions.parse().map_err(|_| usage())?;
    let device = open(rest.first().map_or("cpu", String::as_str))?;
    let work = work(device.clone(), name, batch)?;
    for repetition in 0..=repetitions {
        let started = Instant::now();
        let result = work()?;
        // One element, of which the transfer takes no time.
        let row: usize = result.shape()[1..].iter().product();
        let first = device.slice(&result, 0, 1)?.reshape(&[row])?;
        read_f32(&device, &device.slice(&first, 0, 1)?)?;
        // The first one also makes buffers and pipelines.
        if repetition > 0 {
            println!("{}", started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
