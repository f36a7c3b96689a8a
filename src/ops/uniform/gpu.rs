//! Launches of `shaders/uniform.wgsl`: one invocation computes one vec4.

use super::Uniform;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::uniform::{Params, UNIFORM_NOISE};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Gpu> for Uniform<'_> {
    fn run(&self, gpu: &Gpu, len: usize) -> Result<Tensor> {
        let y = gpu.floats(self.shape)?;
        let [seed, stream] = self
            .key
            .words()
            .map(|words| words.map(|word| word as usize));
        gpu.launch(&UNIFORM_NOISE)
            .elements(len)
            .write("y", &y, 1)
            .run(|slice| {
                let count = slice.rows.div_ceil(4);
                let params = Params {
                    count,
                    first: slice.start / 4,
                    seed_low: seed[0],
                    seed_high: seed[1],
                    stream_low: stream[0],
                    stream_high: stream[1],
                    low: self.low,
                    high: self.high,
                };
                (params, Grid::Invocations(count))
            })?;
        Ok(y)
    }
}
