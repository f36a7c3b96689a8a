//! Images: bytes to floats, normalisation, padded crops and quarter turns.
//!
//! | operation | result | backward |
//! | --- | --- | --- |
//! | [`GatherImages`] | byte images as floats in [0, 1] | |
//! | [`Normalize`] | `(x - mean) / std` of each channel | `dx = dy / std` |
//! | [`PaddedCrops`] | crops of the padded images, mirrored or not | |
//! | [`Rotate90`] | images turned by quarter turns | |

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Fails unless there is one parameter per image.
pub(super) fn one_per_image(check: &Check<'_>, images: usize, parameters: usize) -> Result<()> {
    if images != parameters {
        return Err(check.error(format!(
            "{parameters} parameters were given for {images} images; expected one per image"
        )));
    }
    Ok(())
}

/// Returns the sizes of the f32 images `x`.
fn check_images(check: &mut Check<'_>, x: &Tensor) -> Result<[usize; 4]> {
    let sizes = x.nchw("", "x")?;
    check.f32("x", x)?;
    Ok(sizes)
}

/// Returns the sizes of the f32 images `x`. Fails unless they have three channels.
pub(super) fn check_rgb(check: &mut Check<'_>, x: &Tensor) -> Result<[usize; 4]> {
    let sizes = check_images(check, x)?;
    match sizes[1] {
        3 => Ok(sizes),
        _ => Err(check.error(format!(
            "x has shape {sizes:?}; expected three channels, [N, 3, H, W]"
        ))),
    }
}

/// Writes byte images as floats in [0, 1] to rows of `out`. Row r becomes image
/// `indices[r] - first`, or is unchanged if `images` does not hold that image. A data set that is
/// stored as several tensors is gathered by one call per tensor.
pub struct GatherImages<'a> {
    /// u8 `[M, C, H, W]`
    pub images: &'a Tensor,
    /// The index in the data set of the first image of `images`.
    pub first: usize,
    pub indices: &'a [u32],
    /// f32 `[indices, C, H, W]`
    pub out: &'a Tensor,
}

impl Op for GatherImages<'_> {
    const NAME: &'static str = "gather_images";
    /// The elements of one image.
    type Sizes = usize;
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<usize> {
        let [_, c, h, w] = self.images.nchw("", "images")?;
        let shape = [self.indices.len(), c, h, w];
        check.part("images", self.images, DType::U8, shape.iter().product())?;
        check.part("out", self.out, DType::F32, 0)?;
        self.out.expect("", "out", &shape, DType::F32)?;
        check.host(self.indices);
        check.changes(self.out);
        Ok(c * h * w)
    }

    fn flops(&self, _: usize) -> u64 {
        self.out.len() as u64
    }
}

/// `(x - mean) / std` of each channel of `x [N, 3, H, W]`.
pub struct Normalize<'a> {
    pub x: &'a Tensor,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Op for Normalize<'_> {
    const NAME: &'static str = "normalize";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let (mean, std) = (self.mean, self.std);
        let is_usable =
            mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0);
        if !is_usable {
            return Err(check.error(format!(
                "mean is {mean:?} and std is {std:?}; expected finite numbers, and std above 0"
            )));
        }
        check_rgb(check, self.x)
    }

    fn flops(&self, _: [usize; 4]) -> u64 {
        2 * self.x.len() as u64
    }
}

/// A crop of a padded image, of the image's own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct PaddedCrop {
    /// First row and column of the crop in the padded image: 0 to twice the padding.
    pub top: u32,
    pub left: u32,
    /// 1 to mirror the crop left to right.
    pub flip: u32,
}

/// One crop of each image of `x [N, C, H, W]`, padded by `padding` zeros on every side.
pub struct PaddedCrops<'a> {
    pub x: &'a Tensor,
    pub padding: usize,
    pub crops: &'a [PaddedCrop],
}

impl Op for PaddedCrops<'_> {
    const NAME: &'static str = "padded_crop";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let padding = self.padding;
        let sizes = check_images(check, self.x)?;
        let [n, _, h, w] = sizes;
        one_per_image(check, n, self.crops.len())?;
        // With a larger padding, a crop can be all zeros. The limit also keeps offsets within u32.
        if padding > h.max(w) {
            return Err(check.error(format!(
                "padding {padding} is larger than the images, {h} x {w}; use a smaller padding"
            )));
        }
        let is_outside = |crop: &&PaddedCrop| {
            crop.top as usize > 2 * padding || crop.left as usize > 2 * padding
        };
        if let Some(crop) = self.crops.iter().find(is_outside) {
            return Err(check.error(format!(
                "{crop:?} is not within the image padded by {padding}; offsets are at most {}",
                2 * padding
            )));
        }
        check.host(self.crops);
        Ok(sizes)
    }
}

/// Each square image of `x [N, C, H, H]`, turned counter-clockwise by its number of quarter turns
/// (0 to 3), as `torch.rot90(x, k, (2, 3))`.
pub struct Rotate90<'a> {
    pub x: &'a Tensor,
    pub quarter_turns: &'a [u32],
}

impl Op for Rotate90<'_> {
    const NAME: &'static str = "rotate90";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check_images(check, self.x)?;
        let [n, _, h, w] = sizes;
        one_per_image(check, n, self.quarter_turns.len())?;
        if h != w {
            return Err(check.error(format!("x has shape {sizes:?}; expected square images")));
        }
        if let Some(turns) = self.quarter_turns.iter().find(|&&turns| turns > 3) {
            return Err(check.error(format!(
                "{turns} is not a number of quarter turns; use 0 to 3"
            )));
        }
        check.host(self.quarter_turns);
        Ok(sizes)
    }
}

impl Var {
    /// Normalises images `[N, 3, H, W]` by the mean and the standard deviation of each channel.
    /// Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if there are not three channels, or if a standard deviation is not above 0.
    pub fn normalize(&self, mean: [f32; 3], std: [f32; 3]) -> Result<Var> {
        let x = self.tensor();
        let y = self.device().run(Normalize { x, mean, std })?;
        Var::record(Normalize::NAME, y, [("x", self)], move |device, dy| {
            let (x, mean) = (&dy, [0.0; 3]);
            Ok([device.run(Normalize { x, mean, std })?])
        })
    }
}
