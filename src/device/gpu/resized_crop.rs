//! Launches of `shaders/resized_crop.wgsl`.

use super::GpuDevice;
use super::images::{rows_at_once, window};
use super::shaders::resized_crop::{self as kernels, Params};
use crate::device::kernels::*;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn resized_crop(
    device: &GpuDevice,
    x: &Tensor,
    crops: &[ResizedCrop],
    size: usize,
) -> Result<Tensor> {
    const OPERATION: &str = "resized_crop";
    let x_shape = shapes::resized_crops(x, crops, size)?;
    let [_, c, h, w] = x_shape;
    let y = device.floats(&[crops.len(), c, size, size])?;
    let (image, result) = (c * h * w, c * size * size);
    let images_at_once = rows_at_once(device, 4 * image);
    let results_at_once = rows_at_once(device, 4 * result);
    let mut done = 0;
    while done < crops.len() {
        let (count, images) = run(&crops[done..], results_at_once, images_at_once);
        let (from, x_offset) = window(
            device,
            OPERATION,
            "x",
            x,
            images.start * image,
            images.len() * image,
        )?;
        let (to, y_offset) = window(device, OPERATION, "y", &y, done * result, count * result)?;
        let words = device.words(&crops[done..done + count])?;
        let params = Params {
            count: (count * result) as u32,
            x_offset,
            y_offset,
            channels: c as u32,
            height: h as u32,
            width: w as u32,
            size: size as u32,
            first_image: images.start as u32,
        };
        let parts = [from, device.whole(OPERATION, "crops", &words)?, to];
        device.launch(
            &kernels::RESIZED_CROP,
            params,
            &parts,
            (count * result).div_ceil(256),
        )?;
        done += count;
    }
    Ok(y)
}

/// How many of the next crops one launch makes, and the images that they come from: as many as both bindings take.
fn run(
    crops: &[ResizedCrop],
    most_crops: usize,
    most_images: usize,
) -> (usize, std::ops::Range<usize>) {
    let mut images = crops[0].image as usize..crops[0].image as usize + 1;
    for (count, crop) in crops.iter().enumerate() {
        let image = crop.image as usize;
        let wider = images.start.min(image)..images.end.max(image + 1);
        if count == most_crops || wider.len() > most_images {
            return (count, images);
        }
        images = wider;
    }
    (crops.len(), images)
}
