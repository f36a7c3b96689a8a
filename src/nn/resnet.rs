//! The ResNets (He et al. 2016) without their classifier: images in, features out.

use std::rc::Rc;

use super::batch_norm::MOMENTUM;
use super::shape::{Block, ConvShape, ResNetConfig, ResNetShape, STEM_POOL};
use super::{BatchNorm, Conv, Mode, Parameter};
use crate::autograd::{self, Run, Tape, Var};
use crate::device::Device;
use crate::device::kernels::Activation;
use crate::error::Result;
use crate::tensor::Tensor;

/// A convolution and the batch norm that follows it.
#[derive(Debug)]
struct ConvNorm {
    conv: Conv,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(device: &Device, conv: &ConvShape, norm: &str, seed: u64) -> Result<Self> {
        Ok(ConvNorm {
            conv: Conv::new(device, conv, seed)?,
            norm: BatchNorm::new(device, norm, conv.outputs)?,
        })
    }

    fn forward(
        &self,
        tape: &Tape,
        x: &Var,
        mode: Mode,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        if mode == Mode::Evaluation && !tape.tracks_leaves() {
            let norm = self.norm.channel_norm();
            return self.conv.forward_normalized(tape, x, &norm, activation);
        }
        let x = self.conv.forward(tape, x)?;
        self.norm.forward(tape, &x, mode, activation)
    }

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        std::iter::once(self.conv.weight()).chain(self.norm.parameters())
    }
}

/// Convolutions with batch norm and ReLU, added to their input (or its projection) before the last ReLU.
#[derive(Debug)]
struct Residual {
    layers: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Residual {
    fn new(device: &Device, block: &Block, seed: u64) -> Result<Self> {
        let layers = block
            .convs
            .iter()
            .enumerate()
            .map(|(i, conv)| {
                let norm = format!("{}.bn{}", block.name, i + 1);
                ConvNorm::new(device, conv, &norm, seed)
            })
            .collect::<Result<_>>()?;
        let downsample = match &block.downsample {
            Some(conv) => {
                let norm = format!("{}.downsample.1", block.name);
                Some(ConvNorm::new(device, conv, &norm, seed)?)
            }
            None => None,
        };
        Ok(Residual { layers, downsample })
    }

    fn forward(&self, tape: &Tape, x: &Var, mode: Mode) -> Result<Var> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(tape, x, mode, Activation::Identity)?,
            None => x.clone(),
        };
        let mut x = x.clone();
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            let activation = match i {
                _ if i == last => Activation::AddRelu(&shortcut),
                _ => Activation::Relu,
            };
            x = layer.forward(tape, &x, mode, activation)?;
        }
        Ok(x)
    }

    /// The same, of which the input alone is kept for the way back.
    fn checkpointed(self: &Rc<Self>, tape: &Tape, x: &Var, mode: Mode) -> Result<Var> {
        let parameters: Vec<&Tensor> = self.parameters().map(|p| &p.value).collect();
        let block = self.clone();
        autograd::checkpoint(tape, x, &parameters, move |tape, x, run| {
            let mode = match (mode, run) {
                (Mode::Training, Run::Again) => Mode::TrainingAgain,
                _ => mode,
            };
            block.forward(tape, x, mode)
        })
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        self.layers.iter().chain(&self.downsample)
    }

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers().flat_map(ConvNorm::parameters)
    }
}

/// An encoder: `[N, 3, H, W]` to features `[N, F]`.
pub struct ResNet {
    shape: ResNetShape,
    stem: ConvNorm,
    blocks: Vec<Rc<Residual>>,
    device: Device,
}

impl ResNet {
    /// A network started by Kaiming fan-out, scale 1 and shift 0. The same seed gives the same values on every device.
    ///
    /// # Errors
    /// `Error::Usage` where the configuration cannot be; `Error::Device` where memory is short.
    pub fn new(device: &Device, config: &ResNetConfig, seed: u64) -> Result<Self> {
        let shape = config.shape()?;
        Ok(ResNet {
            stem: ConvNorm::new(device, &shape.stem, "bn1", seed)?,
            blocks: shape
                .blocks
                .iter()
                .map(|block| Residual::new(device, block, seed).map(Rc::new))
                .collect::<Result<_>>()?,
            shape,
            device: device.clone(),
        })
    }

    /// Features `[N, F]`, f32, of images `x [N, 3, H, W]`; what lies between has the type that the tape asks for.
    pub fn forward(&self, tape: &Tape, x: &Var, mode: Mode) -> Result<Var> {
        let x = autograd::cast(tape, x, tape.activations())?;
        let mut x = self.stem.forward(tape, &x, mode, Activation::Relu)?;
        if self.shape.stem_pool {
            x = autograd::max_pool2d(tape, &x, STEM_POOL)?;
        }
        for block in &self.blocks {
            x = match tape.recomputes() {
                true => block.checkpointed(tape, &x, mode)?,
                false => block.forward(tape, &x, mode)?,
            };
        }
        autograd::global_average_pool(tape, &x)
    }

    /// The shapes of its layers.
    pub fn shape(&self) -> &ResNetShape {
        &self.shape
    }

    /// F, the numbers in a feature vector.
    pub fn feature_width(&self) -> usize {
        self.shape.feature_width
    }

    /// FLOPs of one image's forward pass; see [`ResNetShape::flops`].
    pub fn flops(&self, image_size: usize) -> Result<u64> {
        self.shape.flops(image_size)
    }

    /// What is learned, in the order of the layers.
    pub fn parameters(&self) -> Vec<&Parameter> {
        self.layers().flat_map(ConvNorm::parameters).collect()
    }

    /// The running statistics, in the order of the layers.
    pub fn buffers(&self) -> Vec<&Parameter> {
        self.layers()
            .flat_map(|layer| layer.norm.buffers())
            .collect()
    }

    /// Applies the batch statistics of the training passes since the last commit to the running statistics, in the
    /// order of the passes, unless `gate` (u32 `[1]`) is set on the device.
    pub fn commit_running_statistics(&self, gate: Option<&Tensor>) -> Result<()> {
        self.layers().try_for_each(|layer| {
            layer
                .norm
                .commit_running_statistics(&self.device, MOMENTUM, gate)
        })
    }

    /// Commits one training pass to running statistics that are the plain mean over it and `before` earlier ones.
    pub fn average_running_statistics(&self, before: usize) -> Result<()> {
        let momentum = 1.0 / (before as f32 + 1.0);
        self.layers().try_for_each(|layer| {
            layer
                .norm
                .commit_running_statistics(&self.device, momentum, None)
        })
    }

    /// Forgets the batch statistics of training passes that were not committed.
    pub fn discard_running_statistics(&self) {
        self.layers()
            .for_each(|layer| layer.norm.discard_running_statistics());
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        let in_blocks = self.blocks.iter().flat_map(|block| block.layers());
        std::iter::once(&self.stem).chain(in_blocks)
    }
}
