//! Launches of `shaders/resized_crop.wgsl`: one invocation computes one pixel of one channel.

use std::ops::Range;

use super::{CropSizes, ResizedCrop, ResizedCrops};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::resized_crop::{Params, RESIZED_CROP};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Gpu> for ResizedCrops<'_> {
    fn run(&self, gpu: &Gpu, CropSizes { c, h, w }: CropSizes) -> Result<Tensor> {
        let (crops, size) = (self.crops, self.size);
        let y = gpu.floats(&[crops.len(), c, size, size])?;
        let (image, result) = (c * h * w, c * size * size);
        let most_images = gpu.rows_at_once(image).max(1);
        let most_results = gpu.rows_at_once(result).max(1);
        let mut done = 0;
        while done < crops.len() {
            let (count, images) = next(&crops[done..], most_results, most_images);
            let words = gpu.words(&crops[done..done + count])?;
            gpu.launch(&RESIZED_CROP)
                .read("x", self.x, images.start * image..images.end * image)
                .read("crops", &words, ..)
                .write("y", &y, done * result..(done + count) * result)
                .run(|slice| {
                    let params = Params {
                        count: count * result,
                        x_offset: slice.offset("x"),
                        y_offset: slice.offset("y"),
                        channels: c,
                        height: h,
                        width: w,
                        size,
                        first_image: images.start,
                    };
                    (params, Grid::Invocations(count * result))
                })?;
            done += count;
        }
        Ok(y)
    }
}

/// The number of crops of the next launch, and the range of their images. Both are limited by the
/// size of a binding.
fn next(crops: &[ResizedCrop], most_crops: usize, most_images: usize) -> (usize, Range<usize>) {
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
