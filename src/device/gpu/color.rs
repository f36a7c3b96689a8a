//! Launches of `shaders/color.wgsl`.

use super::GpuDevice;
use super::images::{rows_at_once, window};
use super::shaders::color::{self as kernels, Params};
use crate::device::kernels::*;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn color_transform(
    device: &GpuDevice,
    x: &Tensor,
    transforms: &[ColorTransform],
) -> Result<Tensor> {
    const OPERATION: &str = "color_transform";
    let [_, c, h, w] = shapes::color_transforms(x, transforms)?;
    let y = device.floats(x.shape())?;
    let image = c * h * w;
    let mut start = 0;
    for transforms in transforms.chunks(rows_at_once(device, 4 * image)) {
        let count = transforms.len() * image;
        let (from, x_offset) = window(device, OPERATION, "x", x, start, count)?;
        let (to, y_offset) = window(device, OPERATION, "y", &y, start, count)?;
        let words = device.words(transforms)?;
        let params = Params {
            images: transforms.len() as u32,
            pixels: (h * w) as u32,
            x_offset,
            y_offset,
        };
        let parts = [from, device.whole(OPERATION, "transforms", &words)?, to];
        device.launch(&kernels::COLOR_TRANSFORM, params, &parts, transforms.len())?;
        start += count;
    }
    Ok(y)
}
