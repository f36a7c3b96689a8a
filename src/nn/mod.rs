//! Layers, initialisation, the ResNets and what stands on them. Parameters are named as torchvision names them.

mod batch_norm;
mod conv;
mod head;
mod init;
mod linear;
mod parameter;
mod projector;
mod resnet;
mod shape;
pub mod state;

pub use batch_norm::BatchNorm;
pub use conv::Conv;
pub use head::Head;
pub use linear::Linear;
pub use parameter::Parameter;
pub use projector::Projector;
pub use resnet::ResNet;
pub use shape::{Arch, Block, BlockKind, ConvShape, ResNetConfig, ResNetShape, Stem};

/// How batch norm behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Normalise with the batch's statistics, and keep them for the running ones.
    Training,
    /// As in training, for a pass whose statistics an earlier one has kept already.
    TrainingAgain,
    /// Normalise with the running statistics.
    Evaluation,
}
