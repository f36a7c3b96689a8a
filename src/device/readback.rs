//! A transfer from a device to the host that may still be under way.

use crate::device::gpu::GpuReadback;
use crate::error::Result;

/// Bytes on their way to the host. On the CPU device they are there at once.
pub struct Readback(pub(crate) State);

pub(crate) enum State {
    Ready(Vec<u8>),
    Gpu(GpuReadback),
}

impl Readback {
    /// Whether the bytes have arrived, without waiting.
    pub fn is_ready(&self) -> Result<bool> {
        match &self.0 {
            State::Ready(_) => Ok(true),
            State::Gpu(transfer) => transfer.is_ready(),
        }
    }

    /// Waits for the bytes.
    pub fn wait(self) -> Result<Vec<u8>> {
        match self.0 {
            State::Ready(bytes) => Ok(bytes),
            State::Gpu(transfer) => transfer.wait(),
        }
    }

    /// Waits for the elements of a float tensor.
    pub fn wait_f32(self) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.wait()?))
    }

    /// Waits for the elements of a u32 tensor.
    pub fn wait_u32(self) -> Result<Vec<u32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.wait()?))
    }
}
