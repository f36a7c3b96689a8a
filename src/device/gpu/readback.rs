//! Readbacks: the bytes arrive in a staging buffer of the pool.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::context::{Context, lock};
use super::stream::Part;
use crate::error::{Error, Result};

/// A transfer to the host.
pub(crate) struct GpuReadback {
    context: Arc<Context>,
    staging: wgpu::Buffer,
    bytes: usize,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl GpuReadback {
    /// Records a copy of the first `bytes` bytes of `part`, and submits everything recorded so far.
    pub(crate) fn start(context: &Arc<Context>, part: &Part, bytes: usize) -> Result<Self> {
        let copied = (bytes as u64).next_multiple_of(4);
        let staging = context.pool.allocate_staging(context, copied)?;
        context.copy_to_staging(part, &staging, copied);
        context.submit()?;
        let (send, mapped) = channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Sending fails if the readback was dropped, which makes the bytes unnecessary.
            let _ = send.send(result);
        });
        Ok(GpuReadback {
            context: context.clone(),
            staging,
            bytes,
            mapped,
        })
    }

    pub(crate) fn is_ready(&self) -> Result<bool> {
        let polled = self.context.device.poll(wgpu::PollType::Poll);
        polled.map_err(|error| self.failed(error.to_string()))?;
        self.context.check()?;
        // `poll` maps the buffer. `wait` receives the message.
        Ok(self.staging.get_mapped_range(..).is_ok())
    }

    pub(crate) fn wait(self) -> Result<Vec<u8>> {
        lock(&self.context.stream).counts.waits += 1;
        loop {
            match self.mapped.try_recv() {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return Err(self.failed(error.to_string())),
                Err(TryRecvError::Disconnected) => {
                    return Err(self.failed("the transfer was dropped".to_string()));
                }
                Err(TryRecvError::Empty) => self.context.wait(None, "a readback")?,
            }
        }
        let view = self
            .staging
            .get_mapped_range(..)
            .map_err(|error| self.failed(error.to_string()))?;
        let bytes = view[..self.bytes].to_vec();
        drop(view);
        self.staging.unmap();
        self.context.check()?;
        self.context.pool.free_staging(self.staging);
        Ok(bytes)
    }

    fn failed(&self, message: String) -> Error {
        Error::device(&self.context.name, format!("a readback failed: {message}"))
    }
}
