//! Launches of `shaders/cast.wgsl`.

use super::GpuDevice;
use super::shaders::cast::{self as kernels, Params};
use crate::device::kernels::Kernels;
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

pub(super) fn cast(device: &GpuDevice, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let operation = "cast";
    shapes::activations(operation, "x", x)?;
    shapes::activation_type(operation, "dtype", dtype)?;
    if x.dtype() == dtype {
        return device.copy(x);
    }
    let entry = match dtype {
        DType::F16 => &kernels::NARROW,
        _ => &kernels::WIDEN,
    };
    let y = device.allocate(x.shape(), dtype)?;
    for (start, count) in device.slices(operation, x.len(), &[1])? {
        let parts = [
            device.part(operation, "x", x, start, count)?,
            device.part(operation, "y", &y, start, count)?,
        ];
        let count = count.div_ceil(4);
        let params = Params {
            count: count as u32,
        };
        device.launch(entry, params, &parts, count.div_ceil(256))?;
    }
    Ok(y)
}
