//! A transfer from a device to the host.

use crate::device::block_on;
use crate::device::gpu::GpuReadback;
use crate::error::{Error, Result};
use crate::tensor::{DType, Element};

/// A transfer to the host, which may be in flight. On the CPU, it is complete at once.
pub struct Readback {
    state: State,
    dtype: DType,
}

enum State {
    Ready(Vec<u8>),
    Gpu(GpuReadback),
}

impl Readback {
    pub(crate) fn ready(bytes: Vec<u8>, dtype: DType) -> Self {
        let state = State::Ready(bytes);
        Readback { state, dtype }
    }

    pub(crate) fn from_gpu(transfer: GpuReadback, dtype: DType) -> Self {
        let state = State::Gpu(transfer);
        Readback { state, dtype }
    }

    /// Whether the bytes have arrived, without waiting.
    pub fn is_ready(&self) -> Result<bool> {
        match &self.state {
            State::Ready(_) => Ok(true),
            State::Gpu(transfer) => transfer.is_ready(),
        }
    }

    /// Waits for the bytes.
    pub fn wait(self) -> Result<Vec<u8>> {
        block_on(self.wait_async())
    }

    /// As [`Readback::wait`]. Outside of a browser, it blocks the thread.
    pub async fn wait_async(self) -> Result<Vec<u8>> {
        match self.state {
            State::Ready(bytes) => Ok(bytes),
            State::Gpu(transfer) => transfer.wait().await,
        }
    }

    /// Waits for the elements.
    ///
    /// # Errors
    /// `Error::Shape` if the elements are not of type `T`; `Error::Device` if the adapter was lost.
    pub fn wait_as<T: Element>(self) -> Result<Vec<T>> {
        block_on(self.wait_as_async())
    }

    /// As [`Readback::wait_as`]. Outside of a browser, it blocks the thread.
    ///
    /// # Errors
    /// As [`Readback::wait_as`].
    pub async fn wait_as_async<T: Element>(self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            let message = format!(
                "the elements are {:?}; expected {:?}; read them with their own type, and cast F16 to F32 first",
                self.dtype,
                T::DTYPE
            );
            return Err(Error::shape("read", message));
        }
        Ok(bytemuck::pod_collect_to_vec(&self.wait_async().await?))
    }
}
