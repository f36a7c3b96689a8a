//! Launches of `shaders/uniform.wgsl`.

use super::GpuDevice;
use super::shaders::uniform::{self as kernels, Params};
use crate::device::kernels::*;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn uniform(
    device: &GpuDevice,
    key: NoiseKey,
    low: f32,
    high: f32,
    shape: &[usize],
) -> Result<Tensor> {
    let len = shapes::uniform(low, high, shape)?;
    let y = device.floats(shape)?;
    for (start, count) in device.slices("uniform", len, &[1])? {
        let blocks = count.div_ceil(4);
        let params = Params {
            count: blocks as u32,
            first: (start / 4) as u32,
            seed_low: key.seed as u32,
            seed_high: (key.seed >> 32) as u32,
            stream_low: key.stream as u32,
            stream_high: (key.stream >> 32) as u32,
            low,
            high,
        };
        let parts = [device.part("uniform", "y", &y, start, count)?];
        device.launch(
            &kernels::UNIFORM_NOISE,
            params,
            &parts,
            blocks.div_ceil(256),
        )?;
    }
    Ok(y)
}
