//! The layers of ResNets (He et al. 2016) as names and shapes. The network, its parameter count and
//! its FLOPs are derived from them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::ops::conv2d::{Conv2dOptions, ConvGeometry};
use crate::ops::pool::Pool2dOptions;

/// The max-pool of the ImageNet stem.
pub(crate) const STEM_POOL: Pool2dOptions = Pool2dOptions {
    kernel: 3,
    stride: 2,
    padding: 1,
};

/// Colour channels of an image.
const IMAGE_CHANNELS: usize = 3;

/// The architecture of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    ResNet18,
    ResNet34,
    ResNet50,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::ResNet18 => "resnet18",
            Arch::ResNet34 => "resnet34",
            Arch::ResNet50 => "resnet50",
        })
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "resnet18" => Ok(Arch::ResNet18),
            "resnet34" => Ok(Arch::ResNet34),
            "resnet50" => Ok(Arch::ResNet50),
            _ => Err(Error::usage(format!(
                "unknown network '{word}'; expected resnet18, resnet34 or resnet50"
            ))),
        }
    }
}

impl Arch {
    /// Residual blocks in each of the four stages.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Arch::ResNet18 => [2, 2, 2, 2],
            Arch::ResNet34 | Arch::ResNet50 => [3, 4, 6, 3],
        }
    }

    /// The kind of its blocks.
    pub fn block(self) -> BlockKind {
        match self {
            Arch::ResNet18 | Arch::ResNet34 => BlockKind::Basic,
            Arch::ResNet50 => BlockKind::Bottleneck,
        }
    }
}

/// The two kinds of residual blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// 3x3, 3x3. The first convolution has the stride.
    Basic,
    /// 1x1, 3x3, 1x1. The last convolution has four times the channels. The 3x3 has the stride, as
    /// in torchvision.
    Bottleneck,
}

impl BlockKind {
    /// Output channels per inner channel.
    pub fn expansion(self) -> usize {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }
}

/// The layers before the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stem {
    /// 3x3, stride 1, no max-pool, for images of 32 x 32 pixels. The padding is 1, or 0 as in the
    /// released code of the reproduced paper.
    Cifar { padding: usize },
    /// 7x7, stride 2, padding 3, then a 3x3 max-pool of stride 2.
    ImageNet,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stem::Cifar { padding } => write!(f, "cifar, padding {padding}"),
            Stem::ImageNet => write!(f, "imagenet"),
        }
    }
}

impl FromStr for Stem {
    type Err = Error;

    fn from_str(words: &str) -> Result<Self> {
        let padding = words.strip_prefix("cifar, padding ").map(str::parse);
        match (words, padding) {
            ("imagenet", _) => Ok(Stem::ImageNet),
            ("cifar", _) => Ok(Stem::Cifar { padding: 1 }),
            (_, Some(Ok(padding))) => Ok(Stem::Cifar { padding }),
            _ => Err(Error::usage(format!(
                "unknown stem '{words}'; expected cifar, imagenet or 'cifar, padding P'"
            ))),
        }
    }
}

/// The settings that determine the shapes of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResNetConfig {
    pub arch: Arch,
    pub stem: Stem,
    /// The factor of all channel counts, which are rounded to multiples of 4 and at least 4. The
    /// published network has a width of 1.
    pub width: f64,
}

/// One convolution, which is followed by a batch norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// The name in torchvision, for example `layer2.0.downsample.0`.
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
    /// Height and width.
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl ConvShape {
    fn new(name: String, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        ConvShape {
            name,
            inputs,
            outputs,
            kernel,
            stride,
            padding: kernel / 2,
        }
    }

    /// The shape of the weight, `[O, C, KH, KW]`.
    pub fn weight(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }

    /// The geometry for one image of `size` x `size`.
    fn geometry(&self, size: usize) -> Result<ConvGeometry> {
        let options = Conv2dOptions {
            stride: self.stride,
            padding: self.padding,
        };
        ConvGeometry::new([1, self.inputs, size, size], self.weight(), options)
            .map_err(|error| error.of_operation("conv2d"))
    }

    /// Scalars of the weight, and of scale and shift of the batch norm.
    fn parameter_count(&self) -> usize {
        self.weight().iter().product::<usize>() + 2 * self.outputs
    }
}

/// One residual block: a sequence of convolutions, and a projection of the shortcut if shapes
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// For example `layer1.0`.
    pub name: String,
    /// In order. The batch norm of convolution `i` is named `bn{i + 1}`.
    pub convs: Vec<ConvShape>,
    pub downsample: Option<ConvShape>,
}

impl Block {
    fn new(name: String, kind: BlockKind, inputs: usize, channels: usize, stride: usize) -> Self {
        let outputs = channels * kind.expansion();
        // Inputs, outputs, kernel, stride.
        let plan: &[(usize, usize, usize, usize)] = match kind {
            BlockKind::Basic => &[(inputs, channels, 3, stride), (channels, outputs, 3, 1)],
            BlockKind::Bottleneck => &[
                (inputs, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, outputs, 1, 1),
            ],
        };
        let convs = plan
            .iter()
            .enumerate()
            .map(|(i, &(inputs, outputs, kernel, stride))| {
                let name = format!("{name}.conv{}", i + 1);
                ConvShape::new(name, inputs, outputs, kernel, stride)
            })
            .collect();
        let downsample = (stride != 1 || inputs != outputs)
            .then(|| ConvShape::new(format!("{name}.downsample.0"), inputs, outputs, 1, stride));
        Block {
            name,
            convs,
            downsample,
        }
    }
}

/// The shapes of a whole ResNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetShape {
    pub stem: ConvShape,
    /// Whether the stem ends with the max-pool.
    pub stem_pool: bool,
    pub blocks: Vec<Block>,
    /// Elements of a feature vector.
    pub feature_width: usize,
}

impl ResNetConfig {
    /// The shapes of this configuration.
    ///
    /// # Errors
    /// `Error::Usage` if the width is not above 0 and at most 64.
    pub fn shape(&self) -> Result<ResNetShape> {
        if !self.width.is_finite() || self.width <= 0.0 || self.width > 64.0 {
            return Err(Error::usage(format!(
                "the width is {}; expected a number above 0 and at most 64 (the published network has 1)",
                self.width
            )));
        }
        let channels = |full: usize| {
            let multiple = (full as f64 * self.width / 4.0).round() as usize;
            4 * multiple.max(1)
        };
        let stem_channels = channels(64);
        let name = "conv1".to_string();
        let stem = match self.stem {
            Stem::Cifar { padding } => ConvShape {
                padding,
                ..ConvShape::new(name, IMAGE_CHANNELS, stem_channels, 3, 1)
            },
            Stem::ImageNet => ConvShape::new(name, IMAGE_CHANNELS, stem_channels, 7, 2),
        };
        let kind = self.arch.block();
        let mut inputs = stem_channels;
        let mut blocks = Vec::new();
        for (stage, count) in self.arch.blocks().into_iter().enumerate() {
            let inner = channels(64 << stage);
            for index in 0..count {
                let name = format!("layer{}.{index}", stage + 1);
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(name, kind, inputs, inner, stride));
                inputs = inner * kind.expansion();
            }
        }
        Ok(ResNetShape {
            stem,
            stem_pool: self.stem == Stem::ImageNet,
            blocks,
            feature_width: inputs,
        })
    }
}

impl ResNetShape {
    /// The number of scalar parameters of the encoder, without a head.
    pub fn parameter_count(&self) -> usize {
        let in_blocks = self
            .blocks
            .iter()
            .flat_map(|block| block.convs.iter().chain(&block.downsample));
        std::iter::once(&self.stem)
            .chain(in_blocks)
            .map(ConvShape::parameter_count)
            .sum()
    }

    /// FLOPs of the convolutions in a forward pass of one image of `image_size` x `image_size`. A
    /// multiply-add counts as two. The other layers have less than 1 % of it.
    ///
    /// # Errors
    /// `Error::Shape` if the image is too small for the stem.
    pub fn flops(&self, image_size: usize) -> Result<u64> {
        let geometries = self.geometries(image_size)?;
        Ok(geometries.iter().map(ConvGeometry::flops).sum())
    }

    /// Elements of the results of all convolutions, for one image of `image_size` x `image_size`.
    ///
    /// # Errors
    /// As [`ResNetShape::flops`].
    pub fn conv_outputs(&self, image_size: usize) -> Result<u64> {
        let geometries = self.geometries(image_size)?;
        let len = |g: &ConvGeometry| g.y_shape().iter().product::<usize>() as u64;
        Ok(geometries.iter().map(len).sum())
    }

    /// Pixels of the result of the last convolution, for one image of `image_size` x `image_size`.
    ///
    /// # Errors
    /// As [`ResNetShape::flops`].
    pub fn last_plane(&self, image_size: usize) -> Result<usize> {
        let geometries = self.geometries(image_size)?;
        Ok(geometries.last().map_or(0, |last| last.oh * last.ow))
    }

    /// The geometry of all convolutions, the stem first, for one image of `image_size` x
    /// `image_size`.
    ///
    /// # Errors
    /// As [`ResNetShape::flops`].
    pub fn geometries(&self, image_size: usize) -> Result<Vec<ConvGeometry>> {
        let stem = self.stem.geometry(image_size)?;
        let mut size = stem.oh;
        if self.stem_pool {
            let pooled = STEM_POOL.result_shape([1, stem.o, size, size]);
            [.., size] = pooled.map_err(|error| error.of_operation("max_pool2d"))?;
        }
        let mut all = vec![stem];
        for block in &self.blocks {
            if let Some(downsample) = &block.downsample {
                all.push(downsample.geometry(size)?);
            }
            for conv in &block.convs {
                let geometry = conv.geometry(size)?;
                size = geometry.oh;
                all.push(geometry);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Projector};

    fn shape(arch: Arch, stem: Stem) -> ResNetShape {
        let config = ResNetConfig {
            arch,
            stem,
            width: 1.0,
        };
        config.shape().unwrap()
    }

    const CIFAR: Stem = Stem::Cifar { padding: 1 };

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let resnet50 = shape(Arch::ResNet50, CIFAR);
        assert_eq!(resnet50.feature_width, 2048);
        assert_eq!(resnet50.parameter_count(), 23_500_352);
        let with_projector = resnet50.parameter_count() + Projector::parameter_count(2048);
        assert_eq!(with_projector, 27_958_976);
        let with_head = resnet50.parameter_count() + Linear::parameter_count(2048, 10);
        assert_eq!(with_head, 23_520_842);

        let resnet18 = shape(Arch::ResNet18, CIFAR);
        assert_eq!(resnet18.feature_width, 512);
        assert_eq!(resnet18.parameter_count(), 11_168_832);

        // torchvision's resnet18, resnet34 and resnet50 with 1,000 classes.
        for (arch, width, count) in [
            (Arch::ResNet18, 512, 11_689_512),
            (Arch::ResNet34, 512, 21_797_672),
            (Arch::ResNet50, 2048, 25_557_032),
        ] {
            let encoder = shape(arch, Stem::ImageNet).parameter_count();
            assert_eq!(encoder + Linear::parameter_count(width, 1000), count);
        }
    }

    #[test]
    fn flops_are_the_published_ones() {
        // In millions of multiply-adds. The figure of 557 for ResNet-18, which is often cited, also
        // counts two per element of its batch norms.
        let rounded = |arch, stem, size| {
            let flops = shape(arch, stem).flops(size).unwrap();
            (flops as f64 / 2e6).round() as u64
        };
        assert_eq!(rounded(Arch::ResNet50, CIFAR, 32), 1298);
        assert_eq!(rounded(Arch::ResNet18, CIFAR, 32), 555);
        // torchvision lists 4.09 G at 224 pixels, with the head.
        assert_eq!(rounded(Arch::ResNet50, Stem::ImageNet, 224) / 10, 408);
    }

    #[test]
    fn widths_round_to_multiples_of_four() {
        let at = |width| {
            let config = ResNetConfig {
                arch: Arch::ResNet50,
                stem: CIFAR,
                width,
            };
            config.shape()
        };
        let narrow = at(0.11).unwrap();
        assert_eq!(narrow.stem.outputs, 8);
        assert_eq!(narrow.feature_width, 56 * 4);
        assert_eq!(at(0.001).unwrap().stem.outputs, 4);
        for width in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(at(width).unwrap_err().to_string().contains("width"));
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for arch in [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50] {
            assert_eq!(arch.to_string().parse::<Arch>().unwrap(), arch);
        }
        for stem in [
            Stem::Cifar { padding: 0 },
            Stem::Cifar { padding: 1 },
            Stem::ImageNet,
        ] {
            assert_eq!(stem.to_string().parse::<Stem>().unwrap(), stem);
        }
        assert_eq!("cifar".parse::<Stem>().unwrap(), CIFAR);
        assert!("vgg".parse::<Arch>().is_err() && "cifar, padding".parse::<Stem>().is_err());
    }

    #[test]
    fn names_are_those_of_torchvision() {
        let resnet50 = shape(Arch::ResNet50, CIFAR);
        let first = &resnet50.blocks[0];
        assert_eq!(first.convs[2].name, "layer1.0.conv3");
        assert_eq!(
            first.downsample.as_ref().unwrap().name,
            "layer1.0.downsample.0"
        );
        assert_eq!(resnet50.blocks[1].downsample, None);
        let second_stage = &resnet50.blocks[3];
        assert_eq!(second_stage.convs[0].stride, 1);
        assert_eq!(second_stage.convs[1].stride, 2);
        assert_eq!(shape(Arch::ResNet18, CIFAR).blocks[0].downsample, None);
    }
}
