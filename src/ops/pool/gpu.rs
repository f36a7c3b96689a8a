//! Launches of `shaders/pool.wgsl`. A row of a launch is one plane.

use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    Pool2dOptions, PoolSizes,
};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::pool::{self as kernels, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The options of the pooling of whole planes.
const GLOBAL: Pool2dOptions = Pool2dOptions {
    kernel: 0,
    stride: 1,
    padding: 0,
};

impl PoolSizes {
    /// The uniform and the grid of `count` invocations. `offsets` are those of input, result and
    /// argmax.
    fn params(&self, options: Pool2dOptions, count: usize, offsets: [usize; 3]) -> (Params, Grid) {
        let ([_, _, h, w], [_, _, oh, ow]) = (self.x, self.y);
        let params = Params {
            count,
            h,
            w,
            oh,
            ow,
            kernel: options.kernel,
            stride: options.stride,
            padding: options.padding,
            in_offset: offsets[0],
            out_offset: offsets[1],
            places_offset: offsets[2],
        };
        (params, Grid::Invocations(count))
    }

    /// The sizes of the pooling of whole planes.
    fn global([n, c, h, w]: [usize; 4]) -> Self {
        PoolSizes {
            x: [n, c, h, w],
            y: [n, c, 1, 1],
        }
    }
}

impl RunOn<Gpu> for MaxPool2d<'_> {
    fn run(&self, gpu: &Gpu, sizes: PoolSizes) -> Result<MaxPooled> {
        let ([n, c, h, w], [_, _, oh, ow]) = (sizes.x, sizes.y);
        let y = gpu.allocate(&sizes.y, self.x.dtype())?;
        let argmax = gpu.allocate(&sizes.y, DType::U32)?;
        gpu.launch(&kernels::MAX_POOL2D)
            .rows(n * c)
            .read("x", self.x, h * w)
            .write("y", &y, oh * ow)
            .write("argmax", &argmax, oh * ow)
            .run(|slice| {
                let offsets = ["x", "y", "argmax"].map(|name| slice.offset(name));
                sizes.params(self.options, slice.rows * oh * ow, offsets)
            })?;
        Ok(MaxPooled { y, argmax })
    }
}

impl RunOn<Gpu> for MaxPool2dBackward<'_> {
    fn run(&self, gpu: &Gpu, sizes: PoolSizes) -> Result<Tensor> {
        let ([n, c, h, w], [_, _, oh, ow]) = (sizes.x, sizes.y);
        let dx = gpu.allocate(&sizes.x, self.dy.dtype())?;
        gpu.launch(&kernels::MAX_POOL2D_BACKWARD)
            .rows(n * c)
            .read("x", self.dy, oh * ow)
            .read("places", self.argmax, oh * ow)
            .write("y", &dx, h * w)
            .run(|slice| {
                let offsets = ["x", "y", "places"].map(|name| slice.offset(name));
                sizes.params(self.options, slice.rows * h * w, offsets)
            })?;
        Ok(dx)
    }
}

impl RunOn<Gpu> for GlobalAveragePool<'_> {
    fn run(&self, gpu: &Gpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let y = gpu.floats(&[n, c])?;
        gpu.launch(&kernels::GLOBAL_AVERAGE_POOL)
            .rows(n * c)
            .read("x", self.x, h * w)
            .write("features", &y, 1)
            .run(|slice| {
                let offsets = [slice.offset("x"), slice.offset("features"), 0];
                PoolSizes::global([n, c, h, w]).params(GLOBAL, slice.rows, offsets)
            })?;
        Ok(y)
    }
}

impl RunOn<Gpu> for GlobalAveragePoolBackward<'_> {
    fn run(&self, gpu: &Gpu, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        let dx = gpu.allocate(&self.x_shape, self.dtype)?;
        gpu.launch(&kernels::GLOBAL_AVERAGE_POOL_BACKWARD)
            .rows(n * c)
            .read("dfeatures", self.dy, 1)
            .write("y", &dx, h * w)
            .run(|slice| {
                let offsets = [slice.offset("dfeatures"), slice.offset("y"), 0];
                PoolSizes::global([n, c, h, w]).params(GLOBAL, slice.rows * h * w, offsets)
            })?;
        Ok(dx)
    }
}
