//! Launches of `shaders/attack.wgsl`: one invocation moves one vec4.

use super::AttackStep;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::attack::{ATTACK_STEP, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Gpu> for AttackStep<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        let y = gpu.floats(self.x.shape())?;
        gpu.launch(&ATTACK_STEP)
            .elements(y.len())
            .read("x", self.x, 1)
            .read("dx", self.dx, 1)
            .read("clean", self.clean, 1)
            .write("y", &y, 1)
            .run(|slice| {
                let count = slice.rows.div_ceil(4);
                let params = Params {
                    count,
                    alpha: self.alpha,
                    eps: self.eps,
                    low: self.low,
                    high: self.high,
                };
                (params, Grid::Invocations(count))
            })?;
        Ok(y)
    }
}
