//! Launches of `shaders/pool.wgsl`. A row of a launch is one plane.

use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
    PoolSizes,
};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::pool::{self as kernels, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

impl PoolSizes {
    /// The sizes in the uniform.
    fn params(&self) -> Params {
        let ([_, _, h, w], [_, _, oh, ow]) = (self.x, self.y);
        Params {
            h,
            w,
            oh,
            ow,
            stride: 1,
            ..Params::default()
        }
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
                let count = slice.rows * oh * ow;
                let params = Params {
                    count,
                    in_offset: slice.offset("x"),
                    out_offset: slice.offset("y"),
                    places_offset: slice.offset("argmax"),
                    kernel: self.options.kernel,
                    stride: self.options.stride,
                    padding: self.options.padding,
                    ..sizes.params()
                };
                (params, Grid::Invocations(count))
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
                let count = slice.rows * h * w;
                let params = Params {
                    count,
                    in_offset: slice.offset("x"),
                    out_offset: slice.offset("y"),
                    places_offset: slice.offset("places"),
                    kernel: self.options.kernel,
                    stride: self.options.stride,
                    padding: self.options.padding,
                    ..sizes.params()
                };
                (params, Grid::Invocations(count))
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
                let params = Params {
                    count: slice.rows,
                    in_offset: slice.offset("x"),
                    out_offset: slice.offset("features"),
                    ..PoolSizes::global([n, c, h, w]).params()
                };
                (params, Grid::Invocations(slice.rows))
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
                let count = slice.rows * h * w;
                let params = Params {
                    count,
                    in_offset: slice.offset("dfeatures"),
                    out_offset: slice.offset("y"),
                    ..PoolSizes::global([n, c, h, w]).params()
                };
                (params, Grid::Invocations(count))
            })?;
        Ok(dx)
    }
}
