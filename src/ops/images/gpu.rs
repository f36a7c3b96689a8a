//! Launches of `shaders/images.wgsl`: one invocation computes one pixel of one channel.

use std::ops::Range;

use super::{GatherImages, Normalize, PaddedCrops, Rotate90};
use crate::device::gpu::kernels::images::{self as kernels, Params};
use crate::device::gpu::{Grid, Kernel};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// The uniform with the sizes of the images set.
fn sizes([_, c, h, w]: [usize; 4]) -> Params {
    Params {
        channels: c,
        height: h,
        width: w,
        ..Params::default()
    }
}

/// Records `kernel`, which maps images `x [N, C, H, W]` to a new tensor of the same shape. `words`
/// has the parameters of each image, which are bound to the variable `indices`.
fn map<T: bytemuck::Pod>(
    gpu: &Gpu,
    kernel: &'static Kernel,
    params: Params,
    x: &Tensor,
    words: &[T],
) -> Result<Tensor> {
    let y = gpu.floats(x.shape())?;
    let image: usize = x.shape()[1..].iter().product();
    for images in gpu.cut_rows(x.shape()[0], &[image], usize::MAX)? {
        let count = images.len() * image;
        let elements = images.start * image..images.end * image;
        let words = gpu.words(&words[images])?;
        gpu.launch(kernel)
            .read("x", x, elements.clone())
            .read("indices", &words, ..)
            .write("y", &y, elements)
            .run(|slice| {
                let params = Params {
                    count,
                    x_offset: slice.offset("x"),
                    y_offset: slice.offset("y"),
                    ..params
                };
                (params, Grid::Invocations(count))
            })?;
    }
    Ok(y)
}

impl RunOn<Gpu> for GatherImages<'_> {
    fn run(&self, gpu: &Gpu, image: usize) -> Result<()> {
        let [_, c, h, w] = self.images.nchw("", "images")?;
        let elements = |images: &Range<usize>| images.start * image..images.end * image;
        for rows in gpu.cut_rows(self.indices.len(), &[image], usize::MAX)? {
            let count = rows.len() * image;
            let indices = gpu.words(&self.indices[rows.clone()])?;
            // Four bytes per word.
            let words = image.div_ceil(4);
            for stored in gpu.cut_rows(self.images.shape()[0], &[words], usize::MAX)? {
                gpu.launch(&kernels::GATHER)
                    .read("bytes", self.images, elements(&stored))
                    .read("indices", &indices, ..)
                    .write("y", self.out, elements(&rows))
                    .run(|slice| {
                        let params = Params {
                            count,
                            x_offset: slice.offset("bytes"),
                            y_offset: slice.offset("y"),
                            first: self.first + stored.start,
                            stored: stored.len(),
                            ..sizes([0, c, h, w])
                        };
                        (params, Grid::Invocations(count))
                    })?;
            }
        }
        Ok(())
    }
}

impl RunOn<Gpu> for Normalize<'_> {
    fn run(&self, gpu: &Gpu, shape: [usize; 4]) -> Result<Tensor> {
        let [n, c, h, w] = shape;
        let y = gpu.floats(self.x.shape())?;
        gpu.launch(&kernels::NORMALIZE)
            .rows(n)
            .read("x", self.x, c * h * w)
            .write("y", &y, c * h * w)
            .run(|slice| {
                let count = slice.rows * c * h * w;
                let params = Params {
                    count,
                    x_offset: slice.offset("x"),
                    y_offset: slice.offset("y"),
                    mean0: self.mean[0],
                    mean1: self.mean[1],
                    mean2: self.mean[2],
                    std0: self.std[0],
                    std1: self.std[1],
                    std2: self.std[2],
                    ..sizes(shape)
                };
                (params, Grid::Invocations(count))
            })?;
        Ok(y)
    }
}

impl RunOn<Gpu> for PaddedCrops<'_> {
    fn run(&self, gpu: &Gpu, shape: [usize; 4]) -> Result<Tensor> {
        let params = Params {
            padding: self.padding,
            ..sizes(shape)
        };
        map(gpu, &kernels::PADDED_CROP, params, self.x, self.crops)
    }
}

impl RunOn<Gpu> for Rotate90<'_> {
    fn run(&self, gpu: &Gpu, shape: [usize; 4]) -> Result<Tensor> {
        let kernel = &kernels::ROTATE90;
        map(gpu, kernel, sizes(shape), self.x, self.quarter_turns)
    }
}
