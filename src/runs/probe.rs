//! Passes of a few images through a network, to estimate the time and memory of more.

use crate::autograd::{PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::attack::input_gradient;
use crate::nn::{Linear, Module, ResNet, ResNetConfig};
use crate::tensor::{DType, Tensor};

/// The classes of the network.
const CLASSES: usize = 10;

/// A classifier with a few images on a device.
pub struct Probe {
    device: Device,
    network: (ResNet, Linear),
    images: Tensor,
    labels: Tensor,
}

impl Probe {
    /// Pixels and labels are constructed, not read from a data set.
    pub fn new(device: Device, config: &ResNetConfig, side: usize, images: usize) -> Result<Self> {
        let encoder = ResNet::new(config, 0, &device)?;
        let head = Linear::new("fc", encoder.feature_width(), CLASSES, 0, &device)?;
        let len = images * 3 * side * side;
        // Different pixels, so that no statistic is degenerate.
        let pixels: Vec<f32> = (0..len).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        let labels: Vec<u32> = (0..images as u32).map(|i| i % CLASSES as u32).collect();
        Ok(Probe {
            images: Tensor::from_slice(&pixels, &[images, 3, side, side], &device)?,
            labels: Tensor::from_slice(&labels, &[images], &device)?,
            network: (encoder, head),
            device,
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs a supervised step without its optimiser, and waits for it.
    pub fn train(&self, recompute: bool, activations: DType) -> Result<()> {
        let options = PassOptions {
            recompute,
            activations,
            ..PassOptions::default()
        };
        let tape = Tape::with(&self.device, options);
        let logits = self.network.forward(&tape.constant(&self.images))?;
        let loss = logits.cross_entropy(&self.labels)?;
        drop(logits);
        let value = loss.tensor().clone();
        // Read after everything was recorded, the loss waits for every gradient.
        loss.backward()?;
        value.to_vec::<f32>().map(drop)
    }

    /// Runs a forward pass in evaluation mode, and waits for it.
    pub fn evaluate(&self) -> Result<()> {
        let tape = Tape::inference(&self.device);
        let features = self.network.0.forward(&tape.constant(&self.images))?;
        features.tensor().to_vec::<f32>().map(drop)
    }

    /// Computes the gradient with respect to the images, and waits for it.
    pub fn attack(&self) -> Result<()> {
        let classifier = |x: &Var| self.network.forward(x);
        let dx = input_gradient(&self.device, classifier, &self.images, &self.labels)?;
        dx.to_vec::<f32>().map(drop)
    }
}
