//! A transfer from a device to the host.

use crate::device::gpu::GpuReadback;
use crate::error::Result;
use crate::tensor::Element;

/// A transfer to the host, which may be in flight. On the CPU, it is complete at once.
pub struct Readback(State);

enum State {
    Ready(Vec<u8>),
    Gpu(GpuReadback),
}

impl Readback {
    pub(crate) fn ready(bytes: Vec<u8>) -> Self {
        Readback(State::Ready(bytes))
    }

    pub(crate) fn from_gpu(transfer: GpuReadback) -> Self {
        Readback(State::Gpu(transfer))
    }

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

    /// Waits for the elements, which must be of type `T`.
    pub fn wait_as<T: Element>(self) -> Result<Vec<T>> {
        Ok(bytemuck::pod_collect_to_vec(&self.wait()?))
    }
}
