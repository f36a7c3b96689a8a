//! Where tensors live and kernels run. Nothing here knows what a layer is.

use std::sync::Arc;

pub mod cpu;
pub mod gpu;
pub mod kernels;
mod memory;
pub mod philox;
pub mod profile;
mod readback;
pub mod shapes;
mod spans;
pub mod variants;

pub use kernels::Kernels;
pub use readback::Readback;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use kernels::HostSlice;

/// A device, shared by the tensors' users.
pub type Device = Arc<dyn Kernels>;

/// Copies floats to `device`.
pub fn upload_f32(device: &Device, data: &[f32], shape: &[usize]) -> Result<Tensor> {
    device.upload(HostSlice::F32(data), shape)
}

/// Copies unsigned integers to `device`.
pub fn upload_u32(device: &Device, data: &[u32], shape: &[usize]) -> Result<Tensor> {
    device.upload(HostSlice::U32(data), shape)
}

/// Waits for the elements of a float tensor. Only for edges: inside a step nothing waits.
pub fn read_f32(device: &Device, x: &Tensor) -> Result<Vec<f32>> {
    x.expect("read_f32", "x", x.shape(), DType::F32)?;
    device.download(x)?.wait_f32()
}

/// Waits for the elements of a u32 tensor.
pub fn read_u32(device: &Device, x: &Tensor) -> Result<Vec<u32>> {
    x.expect("read_u32", "x", x.shape(), DType::U32)?;
    device.download(x)?.wait_u32()
}

/// Waits for the one float of a `[1]` tensor.
pub fn read_scalar(device: &Device, x: &Tensor) -> Result<f32> {
    let values = read_f32(device, x)?;
    values
        .first()
        .copied()
        .filter(|_| values.len() == 1)
        .ok_or_else(|| {
            Error::shape(
                "read_scalar",
                format!("x has shape {:?}; expected one element", x.shape()),
            )
        })
}
