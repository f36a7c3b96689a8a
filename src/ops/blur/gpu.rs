//! Launches of `shaders/blur.wgsl`: one along the rows, one along the columns.

use super::GaussianBlur;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::blur::{BLUR, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

impl RunOn<Gpu> for GaussianBlur<'_> {
    fn run(&self, gpu: &Gpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let (size, image) = (self.kernel_size, c * h * w);
        let all = self.weights();
        let [rows, y] = [gpu.floats(self.x.shape())?, gpu.floats(self.x.shape())?];
        for images in gpu.cut_rows(n, &[image], usize::MAX)? {
            let weights = &all[images.start * size..images.end * size];
            let (bytes, shape) = (bytemuck::cast_slice(weights), [weights.len()]);
            let weights = gpu.upload(bytes, &shape, DType::F32)?;
            let elements = images.start * image..images.end * image;
            for (x, y, length, stride) in [(self.x, &rows, w, 1), (&rows, &y, h, w)] {
                gpu.launch(&BLUR)
                    .read("x", x, elements.clone())
                    .read("weights", &weights, ..)
                    .write("y", y, elements.clone())
                    .run(|slice| {
                        let params = Params {
                            count: elements.len(),
                            x_offset: slice.offset("x"),
                            y_offset: slice.offset("y"),
                            image,
                            length,
                            stride,
                            size,
                        };
                        (params, Grid::Invocations(elements.len()))
                    })?;
            }
        }
        Ok(y)
    }
}
