//! Launches of `shaders/color.wgsl`: one workgroup per image.

use super::ColorTransforms;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::color::{COLOR_TRANSFORM, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Gpu> for ColorTransforms<'_> {
    fn run(&self, gpu: &Gpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let y = gpu.floats(self.x.shape())?;
        let image = c * h * w;
        for images in gpu.cut_rows(n, &[image], usize::MAX)? {
            let elements = images.start * image..images.end * image;
            let words = gpu.words(&self.transforms[images.clone()])?;
            gpu.launch(&COLOR_TRANSFORM)
                .read("x", self.x, elements.clone())
                .read("transforms", &words, ..)
                .write("y", &y, elements)
                .run(|slice| {
                    let params = Params {
                        images: images.len(),
                        pixels: h * w,
                        x_offset: slice.offset("x"),
                        y_offset: slice.offset("y"),
                    };
                    (params, Grid::Workgroups(images.len()))
                })?;
        }
        Ok(y)
    }
}
