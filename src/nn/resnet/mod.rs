//! ResNets (He et al. 2016) without their classifier, which map images to features.

mod architecture;

use std::rc::Rc;

pub(crate) use architecture::STEM_POOL;
pub use architecture::{Arch, Block, BlockKind, ConvShape, ResNetConfig, ResNetShape, Stem};

use super::{BatchNorm, Conv2d, Module, Normalization, Parameter};
use crate::autograd::{Mode, Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::ops::batch_norm::Activation;
use crate::tensor::Tensor;

/// A convolution and the batch norm that follows it.
#[derive(Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(conv: &ConvShape, norm: &str, seed: u64, device: &Device) -> Result<Self> {
        Ok(ConvNorm {
            conv: Conv2d::new(conv, seed, device)?,
            norm: BatchNorm::new(norm, conv.outputs, device)?,
        })
    }

    /// Computes both layers at once if the parameters need no gradients.
    fn forward(&self, x: &Var, activation: Activation<&Var>) -> Result<Var> {
        let needs_gradients = x.tape().is_some_and(Tape::tracks_leaves);
        if x.mode() == Mode::Evaluation && !needs_gradients {
            let norm = self.norm.channel_norm();
            return self.conv.forward_normalized(x, &norm, activation);
        }
        self.norm.forward_with(&self.conv.forward(x)?, activation)
    }

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.conv
            .parameters()
            .into_iter()
            .chain(self.norm.parameters())
    }
}

/// A residual block. The result of its convolutions is added to the input, or to its projection,
/// before the last ReLU.
#[derive(Debug)]
struct Residual {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Residual {
    fn new(block: &Block, seed: u64, device: &Device) -> Result<Self> {
        let convs = block
            .convs
            .iter()
            .enumerate()
            .map(|(i, conv)| {
                let norm = format!("{}.bn{}", block.name, i + 1);
                ConvNorm::new(conv, &norm, seed, device)
            })
            .collect::<Result<_>>()?;
        let downsample = block.downsample.as_ref().map(|conv| {
            let norm = format!("{}.downsample.1", block.name);
            ConvNorm::new(conv, &norm, seed, device)
        });
        Ok(Residual {
            convs,
            downsample: downsample.transpose()?,
        })
    }

    fn forward(&self, x: &Var) -> Result<Var> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x, Activation::Identity)?,
            None => x.clone(),
        };
        let mut x = x.clone();
        let last = self.convs.len() - 1;
        for (i, conv) in self.convs.iter().enumerate() {
            let activation = if i == last {
                Activation::AddRelu(&shortcut)
            } else {
                Activation::Relu
            };
            x = conv.forward(&x, activation)?;
        }
        Ok(x)
    }

    /// As [`Residual::forward`], but saves only the input for the backward pass.
    fn checkpointed(self: &Rc<Self>, x: &Var) -> Result<Var> {
        let parameters: Vec<&Tensor> = self.parameters().map(|p| &p.value).collect();
        let block = self.clone();
        x.checkpoint(&parameters, move |x| block.forward(x))
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        self.convs.iter().chain(&self.downsample)
    }

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers().flat_map(ConvNorm::parameters)
    }
}

/// An encoder, which maps images `[N, 3, H, W]` to features `[N, F]`.
pub struct ResNet {
    shape: ResNetShape,
    stem: ConvNorm,
    blocks: Vec<Rc<Residual>>,
    normalization: Normalization,
}

impl ResNet {
    /// A network with Kaiming normal initialisation by fan-out, and batch norms of scale 1 and
    /// shift 0. The same seed gives the same values on every device.
    ///
    /// # Errors
    /// `Error::Usage` if the configuration is not valid; `Error::Device` if memory is short.
    pub fn new(config: &ResNetConfig, seed: u64, device: &Device) -> Result<Self> {
        let shape = config.shape()?;
        let block = |block: &Block| Residual::new(block, seed, device).map(Rc::new);
        Ok(ResNet {
            stem: ConvNorm::new(&shape.stem, "bn1", seed, device)?,
            blocks: shape.blocks.iter().map(block).collect::<Result<_>>()?,
            shape,
            normalization: Normalization::default(),
        })
    }

    /// Sets how images are normalised for this network. `forward` takes normalised images; the
    /// evaluations normalise them.
    pub fn with_normalization(self, normalization: Normalization) -> Self {
        ResNet {
            normalization,
            ..self
        }
    }

    /// How images are normalised for this network: by the statistics of CIFAR-10, unless it was
    /// set.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// The shapes of the layers.
    pub fn shape(&self) -> &ResNetShape {
        &self.shape
    }

    /// F, the number of elements of a feature vector.
    pub fn feature_width(&self) -> usize {
        self.shape.feature_width
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        let in_blocks = self.blocks.iter().flat_map(|block| block.layers());
        std::iter::once(&self.stem).chain(in_blocks)
    }
}

impl Module for ResNet {
    /// Maps images `[N, 3, H, W]` to features `[N, F]`, f32. Activations have the type set in the
    /// options of the tape.
    fn forward(&self, x: &Var) -> Result<Var> {
        let options = x.tape().map(Tape::options).unwrap_or_default();
        let mut x = x.cast(options.activations)?;
        x = self.stem.forward(&x, Activation::Relu)?;
        if self.shape.stem_pool {
            x = x.max_pool2d(STEM_POOL)?;
        }
        for block in &self.blocks {
            x = if options.recompute {
                block.checkpointed(&x)?
            } else {
                block.forward(&x)?
            };
        }
        x.global_average_pool()
    }

    fn parameters(&self) -> Vec<&Parameter> {
        self.layers().flat_map(ConvNorm::parameters).collect()
    }

    /// The running statistics.
    fn buffers(&self) -> Vec<&Parameter> {
        self.layers()
            .flat_map(|layer| layer.norm.buffers())
            .collect()
    }
}
