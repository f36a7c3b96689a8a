//! Launches of `shaders/copy.wgsl`.

use super::shaders::copy_vectors as vectors;
use super::shaders::copy_words::{self as words, Params};
use super::{GpuDevice, Part};
use crate::device::spans::UNIT;
use crate::error::Result;
use crate::tensor::Tensor;

/// Records a copy of `count` elements between places counted in elements, each a whole number of words behind the start
/// of its tensor. Elements up to the next whole word are copied too.
pub(super) fn copy_elements(
    device: &GpuDevice,
    operation: &'static str,
    from: (&Tensor, usize),
    to: (&Tensor, usize),
    count: usize,
) -> Result<()> {
    let element = from.0.dtype().bytes();
    let bytes = (count * element).next_multiple_of(4);
    let most = (device.context.binding_limit as usize)
        .saturating_sub(UNIT as usize)
        .max(4);
    for start in (0..bytes).step_by(most) {
        let length = most.min(bytes - start);
        let (x, from) = bound(device, operation, from.0, from.1 * element + start, length)?;
        let (y, to) = bound(device, operation, to.0, to.1 * element + start, length)?;
        let (entry, unit) = match [from, to, length].iter().all(|place| place % 16 == 0) {
            true => (&vectors::COPY, 16),
            false => (&words::COPY, 4),
        };
        let params = Params {
            count: (length / unit) as u32,
            x_start: (from / unit) as u32,
            y_start: (to / unit) as u32,
        };
        device.launch(entry, params, &[x, y], (length / unit).div_ceil(256))?;
    }
    Ok(())
}

/// `length` bytes from byte `start` of a tensor: the part begins where every adapter can bind it, and the number of
/// bytes before `start` comes with it.
fn bound(
    device: &GpuDevice,
    operation: &'static str,
    x: &Tensor,
    start: usize,
    length: usize,
) -> Result<(Part, usize)> {
    let skipped = start % UNIT as usize;
    let element = x.dtype().bytes();
    let part = device.part(
        operation,
        "x",
        x,
        (start - skipped) / element,
        (skipped + length).div_ceil(element),
    )?;
    Ok((part, skipped))
}
