//! Launches of `shaders/l2_normalize.wgsl`: one workgroup per row.

use super::{L2Normalize, L2NormalizeBackward, Normalized};
use crate::device::gpu::kernels::l2_normalize::{self as kernels, Params};
use crate::device::gpu::{Grid, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// The uniform and the grid of a slice. `norm` is the shader's variable for the norms.
fn rows(slice: &Slice<'_>, columns: usize, norm: &str, eps: f32) -> (Params, Grid) {
    let params = Params {
        rows: slice.rows,
        columns,
        offset: slice.offset("result"),
        row_offset: slice.offset(norm),
        eps,
    };
    (params, Grid::Workgroups(slice.rows))
}

impl RunOn<Gpu> for L2Normalize<'_> {
    fn run(&self, gpu: &Gpu, [n, d]: [usize; 2]) -> Result<Normalized> {
        let (y, norm) = (gpu.floats(&[n, d])?, gpu.floats(&[n])?);
        gpu.launch(&kernels::L2_NORMALIZE)
            .rows(n)
            .read("x", self.x, d)
            .write("result", &y, d)
            .write("new_norm", &norm, 1)
            .run(|slice| rows(slice, d, "new_norm", self.eps))?;
        Ok(Normalized { y, norm })
    }
}

impl RunOn<Gpu> for L2NormalizeBackward<'_> {
    fn run(&self, gpu: &Gpu, [n, d]: [usize; 2]) -> Result<Tensor> {
        let dx = gpu.floats(&[n, d])?;
        gpu.launch(&kernels::L2_NORMALIZE_BACKWARD)
            .rows(n)
            .read("x", self.dy, d)
            .read("y", &self.forward.y, d)
            .read("norm", &self.forward.norm, 1)
            .write("result", &dx, d)
            .run(|slice| rows(slice, d, "norm", self.eps))?;
        Ok(dx)
    }
}
