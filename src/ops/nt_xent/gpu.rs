//! Launches of `shaders/nt_xent.wgsl`, which processes matrix products of some rows of z with all
//! rows.

use std::ops::Range;

use super::{NtXent, NtXentBackward};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::nt_xent_vec2::{self as vec2, Params};
use crate::device::gpu::kernels::nt_xent_vec4 as vec4;
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::copy::Slice;
use crate::ops::cross_entropy::RowLoss;
use crate::ops::gemm::{Gemm, transposed};
use crate::tensor::Tensor;

/// Maximum number of products in memory, unless one row has more: 64 MiB.
const SCRATCH: usize = 16 << 20;

/// Ranges of rows whose products with all `n` rows fit `SCRATCH` and a binding.
fn ranges(gpu: &Gpu, n: usize) -> Result<Vec<Range<usize>>> {
    gpu.cut_rows(n, &[n], (SCRATCH / n).max(1))
}

/// The products `[rows, n]` of some rows of z with all rows.
fn products(gpu: &Gpu, z: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    if rows.len() == z.shape()[0] {
        return gpu.run(Gemm::new(z, transposed(z)));
    }
    let (start, count) = (rows.start, rows.len());
    let part = gpu.run(Slice { x: z, start, count })?;
    gpu.run(Gemm::new(&part, transposed(z)))
}

/// The uniform and the grid for the products of these rows.
fn params(n: usize, rows: &Range<usize>, temperature: f32) -> (Params, Grid) {
    let params = Params {
        n,
        first_row: rows.start,
        rows: rows.len(),
        temperature,
    };
    (params, Grid::Workgroups(rows.len()))
}

impl RunOn<Gpu> for NtXent<'_> {
    fn run(&self, gpu: &Gpu, [n, _]: [usize; 2]) -> Result<RowLoss> {
        let (log_sum_exp, losses) = (gpu.floats(&[n])?, gpu.floats(&[n])?);
        let kernel = match n % 4 {
            0 => &vec4::ROW_LOSSES,
            _ => &vec2::ROW_LOSSES,
        };
        for rows in ranges(gpu, n)? {
            let products = products(gpu, self.z, &rows)?;
            gpu.launch(kernel)
                .read("products", &products, ..)
                .write("new_log_sum_exp", &log_sum_exp, ..)
                .write("losses", &losses, ..)
                .run(|_| params(n, &rows, self.temperature))?;
        }
        RowLoss::mean(gpu, &losses, log_sum_exp)
    }
}

impl RunOn<Gpu> for NtXentBackward<'_> {
    fn run(&self, gpu: &Gpu, [n, d]: [usize; 2]) -> Result<Tensor> {
        let ranges = ranges(gpu, n)?;
        if let [all] = &ranges[..] {
            return self.gradient(gpu, n, all);
        }
        let dz = gpu.floats(&[n, d])?;
        for rows in ranges {
            let part = self.gradient(gpu, n, &rows)?;
            gpu.copy_elements((&part, 0), (&dz, rows.start * d), rows.len() * d)?;
        }
        Ok(dz)
    }
}

impl NtXentBackward<'_> {
    /// Computes some rows of dz.
    fn gradient(&self, gpu: &Gpu, n: usize, rows: &Range<usize>) -> Result<Tensor> {
        let kernel = match n % 4 {
            0 => &vec4::WEIGH,
            _ => &vec2::WEIGH,
        };
        let weights = products(gpu, self.z, rows)?;
        gpu.launch(kernel)
            .write("weights", &weights, ..)
            .read("log_sum_exp", self.log_sum_exp, ..)
            .read("dloss", self.dloss, ..)
            .run(|_| params(n, rows, self.temperature))?;
        gpu.run(Gemm::new(&weights, self.z))
    }
}
