//! Uniform noise from the counter-based generator.

use super::CpuDevice;
use super::parallel::{CHUNK, for_chunks};
use crate::device::kernels::*;
use crate::device::philox::{philox4x32, unit_f32};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn uniform(
    device: &CpuDevice,
    key: NoiseKey,
    low: f32,
    high: f32,
    shape: &[usize],
) -> Result<Tensor> {
    let len = shapes::uniform(low, high, shape)?;
    let mut y = device.take(len);
    let seed = [key.seed as u32, (key.seed >> 32) as u32];
    let stream = [key.stream as u32, (key.stream >> 32) as u32];
    // CHUNK is a multiple of 4, so a block of four words never spans two chunks.
    for_chunks(&mut y, CHUNK, |chunk, part| {
        for (i, four) in part.chunks_mut(4).enumerate() {
            let block = (chunk * (CHUNK / 4) + i) as u32;
            let words = philox4x32(seed, [block, 0, stream[0], stream[1]]);
            for (value, word) in four.iter_mut().zip(words) {
                *value = low + (high - low) * unit_f32(word);
            }
        }
    });
    Ok(device.floats(shape, y))
}
