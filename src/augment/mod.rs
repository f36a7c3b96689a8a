//! What a view is: the random transforms, as parameters of kernels. Parameters are drawn on the host from keyed
//! generators; pixels are made by the device.

mod color_jitter;
mod draw;
mod image_store;
mod padded_crop;
mod random_resized_crop;
mod simclr_view;
#[cfg(test)]
mod tests;

pub use color_jitter::ColorJitter;
pub use draw::ViewKey;
pub use image_store::ImageStore;
pub use padded_crop::PaddedCropAugmentation;
pub use random_resized_crop::{CropBox, RandomResizedCrop};
pub use simclr_view::{CIFAR10_STATISTICS, SimClrAugmentation, ViewParameters};
