//! Copies between tensors: launches of `shaders/copy.wgsl`. Copies are kernels, because a buffer
//! that holds many tensors cannot be both source and destination of a wgpu copy.

use super::kernels::{copy_vectors as vectors, copy_words as words};
use super::{Gpu, Grid};
use crate::device::allocator::ALIGNMENT_BYTES;
use crate::error::Result;
use crate::tensor::Tensor;

impl Gpu {
    /// Records a copy of `count` elements from element `from` of `x` to element `to` of `y`. Both
    /// start at whole words. The rest of the last word is copied too.
    pub(crate) fn copy_elements(
        &self,
        (x, from): (&Tensor, usize),
        (y, to): (&Tensor, usize),
        count: usize,
    ) -> Result<()> {
        let element = x.dtype().bytes();
        let bytes = (count * element).next_multiple_of(4);
        let most = (self.context.binding_limit() as usize)
            .saturating_sub(ALIGNMENT_BYTES as usize)
            .max(4);
        for start in (0..bytes).step_by(most) {
            let length = most.min(bytes - start);
            let elements = |first: usize| {
                let first = first + start / element;
                first..first + length.div_ceil(element)
            };
            let (source, target) = (elements(from), elements(to));
            let skipped = |first: usize| first * element % ALIGNMENT_BYTES as usize;
            let places = [skipped(source.start), skipped(target.start), length];
            let (kernel, unit) = if places.iter().all(|place| place % 16 == 0) {
                (&vectors::COPY, 16)
            } else {
                (&words::COPY, 4)
            };
            self.launch(kernel)
                .read("x", x, source)
                .write("y", y, target)
                .run(|slice| {
                    let params = words::Params {
                        count: length / unit,
                        x_start: slice.offset("x") * element / unit,
                        y_start: slice.offset("y") * element / unit,
                    };
                    (params, Grid::Invocations(length / unit))
                })?;
        }
        Ok(())
    }
}
