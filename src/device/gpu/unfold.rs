//! Launches of `shaders/unfold.wgsl`.

use super::GpuDevice;
use super::shaders::unfold_eights::{self as eights, Params};
use super::shaders::unfold_fours as fours;
use super::stream::Part;
use crate::error::Result;
use crate::tensor::Tensor;

/// Taps of a row, or a column, of the kernels that it is for.
pub(super) const SIDE: usize = 3;

/// Images as a 3x3 kernel of stride 1 and padding 1 sees them.
pub(super) struct Unfolded {
    pub(super) y: Tensor,
    /// Elements from a tap's pixels to the next tap's, and to those of the next row of taps.
    pub(super) tap: usize,
    pub(super) tap_row: usize,
    /// Elements from a plane to the next.
    pub(super) plane: usize,
}

/// Rows of a plane of `y`, for images of so many rows: those of the result, or two more where the rows of taps share
/// them.
fn rows(height: usize, shared: bool) -> usize {
    if shared { height + SIDE - 1 } else { height }
}

/// Elements that an image of `[c, h, w]` has when it is unfolded.
pub(super) fn elements([c, h, w]: [usize; 3], shared: bool) -> usize {
    let row_taps = if shared { 1 } else { SIDE };
    row_taps * SIDE * c * rows(h, shared) * w
}

/// The images `[n, c, h, w]` from an element of `x` on, a multiple of 8 as w or of 4; `shared` says whether the rows of
/// taps share their pixels, `w` elements apart, or each has its own.
pub(super) fn unfold(
    device: &GpuDevice,
    operation: &'static str,
    (x, offset): (Part, usize),
    [n, c, h, w]: [usize; 4],
    shared: bool,
) -> Result<Unfolded> {
    let y = device.floats(&[n * elements([c, h, w], shared)])?;
    let rows = rows(h, shared);
    let (entry, width) = match w.is_multiple_of(8) && offset.is_multiple_of(8) {
        true => (&eights::UNFOLD, 8),
        false => (&fours::UNFOLD, 4),
    };
    let params = Params {
        planes: (n * c) as u32,
        height: h as u32,
        width: (w / width) as u32,
        offset: (offset / width) as u32,
        row_taps: if shared { 1 } else { SIDE as u32 },
        rows: rows as u32,
    };
    let parts = [x, device.whole(operation, "the unfolded images", &y)?];
    device.launch(entry, params, &parts, (n * c).div_ceil(8))?;
    let tap = n * c * rows * w;
    Ok(Unfolded {
        y,
        tap,
        tap_row: if shared { w } else { SIDE * tap },
        plane: rows * w,
    })
}
