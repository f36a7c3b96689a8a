//! Layers, their initial values, and ResNets. Parameters have the names of torchvision.

mod batch_norm;
mod conv2d;
mod init;
mod linear;
mod module;
mod normalization;
pub(crate) mod origin;
mod projector;
mod resnet;
pub mod weights;

pub use batch_norm::BatchNorm;
#[cfg(feature = "cli")]
pub(crate) use batch_norm::EPS as NORM_EPS;
pub use conv2d::Conv2d;
pub use linear::Linear;
pub(crate) use module::check_distinct;
pub use module::{Module, Parameter, buffers, parameters};
pub use normalization::{
    CIFAR10_STATISTICS, ChannelStatistics, IMAGENET_STATISTICS, Normalization,
};
pub use origin::Origin;
pub use projector::Projector;
#[cfg(feature = "cli")]
pub(crate) use resnet::STEM_POOL;
pub use resnet::{Arch, Block, BlockKind, ConvShape, ResNet, ResNetConfig, ResNetShape, Stem};
