//! Operations. Each has a folder with formulas and checks (`mod.rs`), CPU loops (`cpu.rs`), kernel
//! launches (`gpu.rs`) and tests.
//!
//! An operation is a struct of its arguments. [`Device::run`](crate::device::Device::run) checks
//! and computes it; the methods of [`Var`](crate::autograd::Var) also record it for gradients.
//!
//! - Images are `[N, C, H, W]`, matrices `[rows, columns]`. Elements are f32, unless stated
//!   otherwise.
//! - *Activations* and their gradients may also be f16. All activations of an operation have the
//!   same type. An operation computes in f32 and rounds each element once, when it is stored.
//! - Gradients have a d-prefix: `dy` is the gradient of the loss with respect to `y`.
//! - Every reduction has a fixed order, so the same call gives the same bits.

use crate::testing::tester::Run;

pub mod attack;
pub mod batch_norm;
pub mod blur;
pub mod cast;
pub mod color;
pub mod conv2d;
pub mod copy;
pub mod cross_entropy;
pub mod elementwise;
pub mod gemm;
pub mod images;
pub mod l2_normalize;
pub mod nt_xent;
pub mod optimizer;
pub mod pool;
pub mod reduce;
pub mod resized_crop;
pub mod tuning;
pub mod uniform;

pub use attack::AttackStep;
pub use batch_norm::{
    Activation, BatchNorm, BatchNormBackward, BatchNormDx, BatchNormStatistics, BatchNormTraining,
    BatchStatistics, ChannelNorm, Statistics, UpdateAverages, UpdateRunningStatistics,
};
pub use blur::GaussianBlur;
pub use cast::Cast;
pub use color::{ColorStep, ColorTransform, ColorTransforms};
pub use conv2d::{Conv2d, Conv2dBatchNorm, Conv2dDw, Conv2dDx, Conv2dOptions};
pub use copy::{Concat, CopyTensor, Slice};
pub use cross_entropy::{CrossEntropy, CrossEntropyBackward, RowLoss};
pub use elementwise::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
pub use gemm::{Gemm, Linear, transposed};
pub use images::{GatherImages, Normalize, PaddedCrop, PaddedCrops, Rotate90};
pub use l2_normalize::{L2Normalize, L2NormalizeBackward, Normalized};
pub use nt_xent::{NtXent, NtXentBackward};
pub use optimizer::{AdamStep, AdamUpdate, LarsStep, LarsUpdate, SgdStep, SgdUpdate};
pub use pool::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    Pool2dOptions,
};
pub use reduce::{CheckFinite, Sum, SumRows};
pub use resized_crop::{ResizedCrop, ResizedCrops};
pub use uniform::{NoiseKey, Uniform};

/// The cases of every operation, with the name of its folder; cheap ones first.
pub(crate) const CASES: &[(&str, Run)] = &[
    ("elementwise", elementwise::cases::run),
    ("cast", cast::cases::run),
    ("copy", copy::cases::run),
    ("reduce", reduce::cases::run),
    ("uniform", uniform::cases::run),
    ("images", images::cases::run),
    ("resized_crop", resized_crop::cases::run),
    ("blur", blur::cases::run),
    ("color", color::cases::run),
    ("attack", attack::cases::run),
    ("l2_normalize", l2_normalize::cases::run),
    ("nt_xent", nt_xent::cases::run),
    ("cross_entropy", cross_entropy::cases::run),
    ("optimizer", optimizer::cases::run),
    ("pool", pool::cases::run),
    ("batch_norm", batch_norm::cases::run),
    ("gemm", gemm::cases::run),
    ("conv2d", conv2d::cases::run),
];
