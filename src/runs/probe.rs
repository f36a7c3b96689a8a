//! Passes of a few images through a network, to learn what more of them would take.

use crate::autograd::{self, Tape};
use crate::device::{Device, read_f32, upload_f32, upload_u32};
use crate::error::Result;
use crate::evaluate::attack::input_gradient;
use crate::nn::{Head, Mode, ResNet, ResNetConfig};
use crate::tensor::{DType, Tensor};

/// A network with a few images on a device.
pub struct Probe {
    device: Device,
    encoder: ResNet,
    head: Head,
    images: Tensor,
    labels: Tensor,
}

impl Probe {
    /// Draws nothing: every pixel and label is made up.
    pub fn new(device: Device, config: &ResNetConfig, side: usize, images: usize) -> Result<Self> {
        let encoder = ResNet::new(&device, config, 0)?;
        let head = Head::new(&device, encoder.feature_width(), 10, 0)?;
        let len = images * 3 * side * side;
        // Not all the same, so that no statistic is degenerate.
        let pixels: Vec<f32> = (0..len).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        let labels: Vec<u32> = (0..images as u32).map(|i| i % 10).collect();
        Ok(Probe {
            images: upload_f32(&device, &pixels, &[images, 3, side, side])?,
            labels: upload_u32(&device, &labels, &[images])?,
            encoder,
            head,
            device,
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A supervised step without its optimiser, whose blocks are computed again on the way back where `recompute` says
    /// so and whose activations are stored as `activations`; waits for it.
    pub fn train(&self, recompute: bool, activations: DType) -> Result<()> {
        let tape = Tape::new(&self.device)
            .recomputing(recompute)
            .with_activations(activations);
        let x = tape.constant(&self.images);
        let features = self.encoder.forward(&tape, &x, Mode::Training)?;
        let logits = self.head.forward(&tape, &features)?;
        let loss = autograd::softmax_cross_entropy(&tape, &logits, &self.labels)?;
        // Read after everything was recorded, the loss waits for every gradient.
        tape.backward(&loss)?;
        read_f32(&self.device, loss.tensor()).map(drop)
    }

    /// A forward pass in evaluation mode; waits for it.
    pub fn evaluate(&self) -> Result<()> {
        let tape = Tape::inference(&self.device);
        let x = tape.constant(&self.images);
        let features = self.encoder.forward(&tape, &x, Mode::Evaluation)?;
        read_f32(&self.device, features.tensor()).map(drop)
    }

    /// The gradient with respect to the images; waits for it.
    pub fn attack(&self) -> Result<()> {
        let dx = input_gradient(
            &self.device,
            |tape, x| {
                let features = self.encoder.forward(tape, x, Mode::Evaluation)?;
                self.head.forward(tape, &features)
            },
            &self.images,
            &self.labels,
        )?;
        read_f32(&self.device, &dx).map(drop)
    }
}
