//! Random views of images. The host draws the parameters of the transforms from keyed generators,
//! and the device computes the pixels.

mod color_jitter;
mod draw;
mod image_store;
mod padded_crop;
mod random_blur;
mod random_resized_crop;
mod simclr_view;
#[cfg(test)]
mod tests;

pub use color_jitter::ColorJitter;
pub use draw::ViewKey;
pub use image_store::ImageStore;
pub use padded_crop::PaddedCropAugmentation;
pub use random_blur::RandomBlur;
pub use random_resized_crop::{CropBox, RandomResizedCrop};
pub use simclr_view::{SimClrAugmentation, ViewParameters};

pub use crate::nn::CIFAR10_STATISTICS;
