//! Times one operation on a device, for a comparison with another program: a product of 512 x 512 x
//! 512, a 3x3 convolution of 64 channels of 32x32, or a residual block of two of them, forward and
//! backward. Prints the seconds of each repetition after the first, one per line.
//!
//! `cargo run --release --example operations -- WORK BATCH REPETITIONS [cpu|ADAPTER]`
//!
//! WORK is product, convolution or block, ADAPTER a part of an adapter's name.

use std::time::Instant;

use parallax::autograd::{Tape, Var};
use parallax::ops::batch_norm::Affine;
use parallax::ops::{Activation, Conv2d, Conv2dOptions, Gemm, Slice};
use parallax::philox::Philox;
use parallax::{Device, Error, Result, Tensor};

/// A 3x3 convolution whose result has as many pixels as its input.
const CONV: Conv2dOptions = Conv2dOptions {
    stride: 1,
    padding: 1,
};

/// The timed work. Its result is complete when one of its elements can be read.
type Work = Box<dyn Fn() -> Result<Tensor>>;

fn work(device: Device, name: &str, batch: usize) -> Result<Work> {
    let mut rng = Philox::new(0, [0; 3]);
    let mut random = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        Tensor::from_slice(&values, shape, &device)
    };
    Ok(match name {
        "product" => {
            let (a, b) = (random(&[512, 512])?, random(&[512, 512])?);
            Box::new(move || device.run(Gemm::new(&a, &b)))
        }
        "convolution" => {
            let (x, w) = (random(&[batch, 64, 32, 32])?, random(&[64, 64, 3, 3])?);
            Box::new(move || {
                device.run(Conv2d {
                    x: &x,
                    w: &w,
                    options: CONV,
                })
            })
        }
        "block" => {
            let x = random(&[batch, 64, 32, 32])?;
            let weights = [random(&[64, 64, 3, 3])?, random(&[64, 64, 3, 3])?];
            let gamma = Tensor::from_slice(&[1.0f32; 64], &[64], &device)?;
            let beta = Tensor::from_slice(&[0.0f32; 64], &[64], &device)?;
            Box::new(move || {
                let tape = Tape::new(&device);
                let input = tape.input(&x);
                let layer = |x: &Var, w: &Tensor, activation: Activation<&Var>| -> Result<Var> {
                    let affine = Affine {
                        gamma: &tape.leaf(&gamma),
                        beta: &tape.leaf(&beta),
                        eps: 1e-5,
                    };
                    let x = x.conv2d(&tape.leaf(w), CONV)?;
                    Ok(x.batch_norm(affine, activation)?.0)
                };
                let y = layer(&input, &weights[0], Activation::Relu)?;
                let y = layer(&y, &weights[1], Activation::AddRelu(&input))?;
                let gradients = y.sum()?.backward()?;
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
    let device = Device::open(rest.first().map_or("cpu", String::as_str))?;
    let work = work(device.clone(), name, batch)?;
    for repetition in 0..=repetitions {
        let started = Instant::now();
        let result = work()?;
        // The transfer of one element takes no time.
        let (x, start, count) = (&result.reshape(&[result.len()])?, 0, 1);
        device.run(Slice { x, start, count })?.to_vec::<f32>()?;
        // The first repetition also allocates memory and compiles pipelines.
        if repetition > 0 {
            println!("{}", started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
