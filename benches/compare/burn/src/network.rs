//! CIFAR-stem ResNets with a classifier, as torchvision builds their blocks.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new([inputs, outputs]: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Self {
        let padding = kernel / 2;
        ConvNorm {
            conv: Conv2dConfig::new([inputs, outputs], [kernel, kernel])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(
                    padding, padding, padding, padding,
                ))
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(outputs).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// Convolutions with batch norm and ReLU, added to their input before the last ReLU.
#[derive(Module, Debug)]
pub struct Block {
    layers: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    /// Two 3x3 convolutions.
    pub fn basic(inputs: usize, planes: usize, stride: usize, device: &Device) -> Self {
        Block {
            layers: vec![
                ConvNorm::new([inputs, planes], 3, stride, device),
                ConvNorm::new([planes, planes], 3, 1, device),
            ],
            downsample: (stride != 1 || inputs != planes)
                .then(|| ConvNorm::new([inputs, planes], 1, stride, device)),
        }
    }

    /// 1x1, 3x3 with the stride, 1x1 to four times the planes.
    fn bottleneck(inputs: usize, planes: usize, stride: usize, device: &Device) -> Self {
        let outputs = 4 * planes;
        Block {
            layers: vec![
                ConvNorm::new([inputs, planes], 1, 1, device),
                ConvNorm::new([planes, planes], 3, stride, device),
                ConvNorm::new([planes, outputs], 1, 1, device),
            ],
            downsample: (stride != 1 || inputs != outputs)
                .then(|| ConvNorm::new([inputs, outputs], 1, stride, device)),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x.clone()),
            None => x.clone(),
        };
        let mut x = x;
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            x = relu(if i == last { x + shortcut.clone() } else { x });
        }
        x
    }
}

#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    pool: AdaptiveAvgPool2d,
    head: Linear,
}

impl ResNet {
    /// ResNet-18, or ResNet-50 where `bottleneck`, with ten classes.
    pub fn new(bottleneck: bool, device: &Device) -> Self {
        let counts = if bottleneck {
            [3, 4, 6, 3]
        } else {
            [2, 2, 2, 2]
        };
        let mut blocks = Vec::new();
        let mut width = 64;
        for (stage, count) in counts.into_iter().enumerate() {
            let planes = 64 << stage;
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                if bottleneck {
                    blocks.push(Block::bottleneck(width, planes, stride, device));
                    width = 4 * planes;
                } else {
                    blocks.push(Block::basic(width, planes, stride, device));
                    width = planes;
                }
            }
        }
        ResNet {
            stem: ConvNorm::new([3, 64], 3, 1, device),
            blocks,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            head: LinearConfig::new(width, 10).init(device),
        }
    }

    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.stem.forward(images));
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.head.forward(self.pool.forward(x).flatten(1, 3))
    }
}
