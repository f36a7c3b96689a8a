//! Resized crops: bilinear, antialiased, with half-pixel centres, as torch's
//! `_upsample_bilinear2d_aa`. `cpu.rs` has the formula.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::Tensor;

/// The box of one crop in pixels of the source image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ResizedCrop {
    /// The index of the image in the batch.
    pub image: u32,
    pub top: u32,
    pub left: u32,
    pub height: u32,
    pub width: u32,
    /// 1 to mirror the result left to right.
    pub flip: u32,
}

/// Crops of the images `x [N, C, H, W]`, resized to `[crops, C, size, size]`.
pub struct ResizedCrops<'a> {
    pub x: &'a Tensor,
    pub crops: &'a [ResizedCrop],
    pub size: usize,
}

/// Channels, height and width of the images.
#[derive(Clone, Copy)]
pub struct CropSizes {
    c: usize,
    h: usize,
    w: usize,
}

/// Maximum side of an image, before and after resizing, in pixels. It keeps the integer weights of
/// the filter (`cpu.rs`) within 32 bits.
const LARGEST_SIDE: usize = 16_384;

impl Op for ResizedCrops<'_> {
    const NAME: &'static str = "resized_crop";
    type Sizes = CropSizes;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<CropSizes> {
        let size = self.size;
        let [n, c, h, w] = self.x.nchw("", "x")?;
        check.f32("x", self.x)?;
        if size == 0 {
            return Err(check.error("the size is 0; it must be at least 1"));
        }
        if h.max(w).max(size) > LARGEST_SIDE {
            return Err(check.error(format!(
                "{h} x {w} to {size} x {size} pixels: a side has at most {LARGEST_SIDE} pixels"
            )));
        }
        let is_inside = |crop: &ResizedCrop| {
            (crop.image as usize) < n
                && crop.height > 0
                && crop.width > 0
                && crop.top as usize + crop.height as usize <= h
                && crop.left as usize + crop.width as usize <= w
        };
        if let Some(crop) = self.crops.iter().find(|crop| !is_inside(crop)) {
            return Err(check.error(format!(
                "{crop:?} is not within a batch of {n} images of {h} x {w}"
            )));
        }
        check.elements(&[self.crops.len(), c, size, size])?;
        check.host(self.crops);
        Ok(CropSizes { c, h, w })
    }
}
