//! The shapes of a ResNet-50, and a short training.

use crate::autograd::{PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Arch, Linear, Module, ResNet, ResNetConfig, Stem};
use crate::ops::conv2d::cases::{Case, large_convolutions};
use crate::ops::gemm::cases::products;
use crate::optim::Optimization;
use crate::tensor::{DType, Tensor};
use crate::testing::tester::On;
use crate::testing::{Expected, Tester, normal};
use crate::train::Trainer;

/// Pixels of a ResNet-50's images.
const SIDE: usize = 32;
/// Side of the largest planes of which two images are tested, so that tiles span images.
const SMALL_PLANE: usize = 8;
/// Steps of the training, and its images and classes.
const STEPS: u64 = 3;
const IMAGES: usize = 8;
const CLASSES: usize = 10;
/// The allowed differences from the CPU's losses, relative to them, by the type of activations.
const LOSS_TOLERANCES: [(DType, f64); 2] = [(DType::F32, 1e-3), (DType::F16, 1e-2)];

/// Each convolution shape of a ResNet-50 for images of 32 x 32 pixels, and products of its
/// projector.
pub fn resnet50(tester: &Tester) -> Result<()> {
    let network = ResNetConfig {
        arch: Arch::ResNet50,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let mut cases: Vec<Case> = Vec::new();
    for g in network.shape()?.geometries(SIDE)? {
        let images = if g.h <= SMALL_PLANE { 2 } else { 1 };
        let x_shape = [images, g.c, g.h, g.w];
        let case = (x_shape, g.w_shape(), g.stride, g.padding);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    large_convolutions(tester, 47, &cases)?;
    products(tester, 48, &[[64, 2048, 2048], [64, 128, 2048]])
}

/// Trains a small ResNet-18 for three steps, and compares the losses with those of the CPU.
pub fn training(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(49);
    let pixels = normal(&mut rng, IMAGES * 3 * SIDE * SIDE);
    for (dtype, tolerance) in LOSS_TOLERANCES {
        let mut expected = Expected::default();
        for loss in losses(&Device::cpu(), &pixels, dtype)? {
            let loss = f64::from(loss);
            expected.push(loss, tolerance * loss.abs());
        }
        let case = format!("losses in {dtype}");
        let on_matrices = tester.all_variants().filter(On::is_on_matrices);
        for on in tester.all().filter(|on| !on.is_sliced()).chain(on_matrices) {
            let runs = match dtype {
                DType::F16 => on.has_f16(),
                _ => !on.is_on_matrices(),
            };
            if runs {
                let found = losses(&on, &pixels, dtype)?;
                on.agree_on_host(&case, &found, &expected);
            }
        }
    }
    Ok(())
}

fn losses(device: &Device, pixels: &[f32], activations: DType) -> Result<Vec<f32>> {
    let config = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width: 0.125,
    };
    let mut trainer = classifier(device, &config, pixels, activations)?;
    (0..STEPS)
        .map(|step| {
            let pending = trainer.step(step)?;
            trainer.finish(pending)
        })
        .collect()
}

type Network = (ResNet, Linear);
type Loss = Box<dyn FnMut(&Network, &Tape, u64) -> Result<Var>>;

/// The training of a ResNet with a linear layer on one batch of images of 32 x 32 pixels.
pub(crate) fn classifier(
    device: &Device,
    config: &ResNetConfig,
    pixels: &[f32],
    activations: DType,
) -> Result<Trainer<Network, Loss>> {
    let encoder = ResNet::new(config, 0, device)?;
    let head = Linear::new("fc", encoder.feature_width(), CLASSES, 0, device)?;
    let count = pixels.len() / (3 * SIDE * SIDE);
    let images = Tensor::from_slice(pixels, &[count, 3, SIDE, SIDE], device)?;
    let labels: Vec<u32> = (0..count as u32).map(|i| i % CLASSES as u32).collect();
    let labels = Tensor::from_slice(&labels, &[count], device)?;
    let loss: Loss = Box::new(move |network: &Network, tape: &Tape, _| {
        network
            .forward(&tape.constant(&images))?
            .cross_entropy(&labels)
    });
    let trainer = Trainer::new((encoder, head), Optimization::adam(1e-3), loss)?;
    trainer.with_options(PassOptions {
        activations,
        ..PassOptions::default()
    })
}
