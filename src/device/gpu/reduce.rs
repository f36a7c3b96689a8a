//! Launches of `shaders/reduce.wgsl`.

use super::GpuDevice;
use super::shaders::reduce::{self as kernels, Params};
use crate::device::kernels::Kernels;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements that a workgroup of `sum` and of `check_finite` takes.
const GROUP: usize = 4096;
/// Rows that an invocation of `sum_rows` takes.
const ROWS: usize = 64;

pub(super) fn sum(device: &GpuDevice, x: &Tensor) -> Result<Tensor> {
    let operation = "sum";
    shapes::floats(operation, "x", x)?;
    if x.is_empty() {
        return device.zeros(&[1], DType::F32);
    }
    let mut x = x.clone();
    loop {
        let ranges = device.slices(operation, x.len(), &[1])?;
        let groups = ranges.iter().map(|(_, count)| count.div_ceil(GROUP)).sum();
        let y = device.floats(&[groups])?;
        let mut y_offset = 0;
        for (start, count) in ranges {
            let groups = count.div_ceil(GROUP);
            let params = Params {
                count: count as u32,
                columns: 0,
                x_offset: 0,
                y_offset: y_offset as u32,
            };
            let parts = [
                device.part(operation, "x", &x, start, count)?,
                device.whole(operation, "y", &y)?,
            ];
            device.launch(&kernels::SUM, params, &parts, groups)?;
            y_offset += groups;
        }
        if y.len() == 1 {
            return Ok(y);
        }
        x = y;
    }
}

pub(super) fn sum_rows(device: &GpuDevice, x: &Tensor) -> Result<Tensor> {
    let operation = "sum_rows";
    shapes::floats(operation, "x", x)?;
    let [rows, columns] = x.matrix(operation, "x")?;
    if x.is_empty() {
        return device.zeros(&[columns], DType::F32);
    }
    let (mut x, mut rows) = (x.clone(), rows);
    loop {
        let ranges = device.row_ranges(operation, rows, &[columns], usize::MAX)?;
        let groups: usize = ranges.iter().map(|(_, count)| count.div_ceil(ROWS)).sum();
        let y = device.floats(&[groups, columns])?;
        let mut done = 0;
        for (start, count) in ranges {
            let groups = count.div_ceil(ROWS);
            let (from, x_offset) =
                device.part_from(operation, "x", &x, start * columns, count * columns)?;
            let (to, y_offset) =
                device.part_from(operation, "y", &y, done * columns, groups * columns)?;
            let params = Params {
                count: count as u32,
                columns: columns as u32,
                x_offset: x_offset as u32,
                y_offset: y_offset as u32,
            };
            let workgroups = (groups * columns).div_ceil(256);
            device.launch(&kernels::SUM_ROWS, params, &[from, to], workgroups)?;
            done += groups;
        }
        if groups == 1 {
            return y.reshape(&[columns]);
        }
        (x, rows) = (y, groups);
    }
}

pub(super) fn check_finite(device: &GpuDevice, x: &Tensor, flag: &Tensor) -> Result<()> {
    let operation = "check_finite";
    flag.expect(operation, "flag", &[1], DType::U32)?;
    shapes::activations(operation, "x", x)?;
    let entry = match x.dtype() {
        DType::F16 => &kernels::CHECK_FINITE_F16,
        _ => &kernels::CHECK_FINITE,
    };
    let flag = device.whole(operation, "flag", flag)?;
    for (start, count) in device.slices(operation, x.len(), &[1])? {
        let params = Params {
            count: count as u32,
            columns: 0,
            x_offset: 0,
            y_offset: 0,
        };
        let parts = [device.part(operation, "x", x, start, count)?, flag.clone()];
        device.launch(entry, params, &parts, count.div_ceil(GROUP))?;
    }
    Ok(())
}
