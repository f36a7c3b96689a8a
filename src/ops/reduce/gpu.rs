//! Launches of `shaders/reduce.wgsl`.

use super::{CheckFinite, Sum, SumRows};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::reduce::{self as kernels, Params};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements per workgroup of `sum` and `check_finite`.
const GROUP: usize = 4096;
/// Rows per invocation of `sum_rows`.
const ROWS: usize = 64;

impl RunOn<Gpu> for Sum<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        if self.x.is_empty() {
            return gpu.zeros(&[1], DType::F32);
        }
        let mut x = self.x.clone();
        loop {
            let groups = x.len().div_ceil(GROUP);
            let y = gpu.floats(&[groups])?;
            gpu.launch(&kernels::SUM)
                .rows(groups)
                .read("x", &x, GROUP)
                .write("y", &y, 1)
                .run(|slice| {
                    let params = Params {
                        count: slice.elements(&x, GROUP),
                        x_offset: slice.offset("x"),
                        y_offset: slice.offset("y"),
                        ..Params::default()
                    };
                    (params, Grid::Workgroups(slice.rows))
                })?;
            x = y;
            if groups == 1 {
                return Ok(x);
            }
        }
    }
}

impl RunOn<Gpu> for SumRows<'_> {
    fn run(&self, gpu: &Gpu, [rows, columns]: [usize; 2]) -> Result<Tensor> {
        if self.x.is_empty() {
            return gpu.zeros(&[columns], DType::F32);
        }
        let (mut x, mut rows) = (self.x.clone(), rows);
        // If a binding holds fewer rows, each group is one launch.
        let per_group = ROWS.min(gpu.rows_at_once(columns)).max(1);
        loop {
            let groups = rows.div_ceil(per_group);
            let y = match groups {
                1 => gpu.result(0, &[columns])?,
                _ => gpu.floats(&[groups, columns])?,
            };
            gpu.launch(&kernels::SUM_ROWS)
                .rows(groups)
                .read("x", &x, per_group * columns)
                .write("y", &y, columns)
                .run(|slice| {
                    let params = Params {
                        count: slice.elements(&x, per_group * columns) / columns,
                        columns,
                        x_offset: slice.offset("x"),
                        y_offset: slice.offset("y"),
                    };
                    (params, Grid::Invocations(slice.rows * columns))
                })?;
            if groups == 1 {
                return Ok(y);
            }
            (x, rows) = (y, groups);
        }
    }
}

impl RunOn<Gpu> for CheckFinite<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<()> {
        let kernel = match self.x.dtype() {
            DType::F16 => &kernels::CHECK_FINITE_F16,
            _ => &kernels::CHECK_FINITE,
        };
        // A group is a multiple of 256 bytes, so every slice starts at its binding.
        gpu.launch(kernel)
            .rows(self.x.len().div_ceil(GROUP))
            .read("bits", self.x, GROUP)
            .write("flag", self.flag, ..)
            .run(|slice| {
                let params = Params {
                    count: slice.elements(self.x, GROUP),
                    ..Params::default()
                };
                (params, Grid::Workgroups(slice.rows))
            })
    }
}
