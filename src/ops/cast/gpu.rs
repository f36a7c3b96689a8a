//! Launches of `shaders/cast.wgsl`: one invocation converts one vec4.

use super::Cast;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::cast::{self as kernels, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::copy::CopyTensor;
use crate::tensor::{DType, Tensor};

impl RunOn<Gpu> for Cast<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        if self.x.dtype() == self.dtype {
            return gpu.run(CopyTensor { x: self.x });
        }
        let (kernel, from, to) = match self.dtype {
            DType::F16 => (&kernels::NARROW, "wide", "to_half"),
            _ => (&kernels::WIDEN, "half", "to_wide"),
        };
        let y = gpu.allocate(self.x.shape(), self.dtype)?;
        gpu.launch(kernel)
            .elements(self.x.len())
            .read(from, self.x, 1)
            .write(to, &y, 1)
            .run(|slice| {
                let count = slice.rows.div_ceil(4);
                (Params { count }, Grid::Invocations(count))
            })?;
        Ok(y)
    }
}
