//! Readbacks: the bytes arrive in a staging buffer of the pool.

use std::future::poll_fn;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::context::{Context, lock};
use super::stream::Part;
use crate::device::IN_BROWSER;
use crate::error::{Error, Result};

/// A transfer to the host.
pub(crate) struct GpuReadback {
    context: Arc<Context>,
    staging: wgpu::Buffer,
    bytes: usize,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
    /// The task that waits for `mapped`, in a browser.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl GpuReadback {
    /// Records a copy of the first `bytes` bytes of `part`, and submits everything recorded so far.
    pub(crate) fn start(context: &Arc<Context>, part: &Part, bytes: usize) -> Result<Self> {
        let copied = (bytes as u64).next_multiple_of(4);
        let staging = context.pool.allocate_staging(context, copied)?;
        context.copy_to_staging(part, &staging, copied);
        context.submit()?;
        let (send, mapped) = channel();
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let waiting = waker.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Sending fails if the readback was dropped, which makes the bytes unnecessary.
            let _ = send.send(result);
            if let Some(waker) = lock(&waiting).take() {
                waker.wake();
            }
        });
        Ok(GpuReadback {
            context: context.clone(),
            staging,
            bytes,
            mapped,
            waker,
        })
    }

    pub(crate) fn is_ready(&self) -> Result<bool> {
        let polled = self.context.poll(wgpu::PollType::Poll);
        polled.map_err(|error| self.failed(error.to_string()))?;
        self.context.check()?;
        // `poll` maps the buffer. `wait` receives the message.
        Ok(self.staging.get_mapped_range(..).is_ok())
    }

    /// Waits for the bytes. A browser maps the buffer between two of its tasks. On other hosts,
    /// this blocks the thread, because a GPU calls back only while the host waits for it.
    pub(crate) async fn wait(self) -> Result<Vec<u8>> {
        lock(&self.context.stream).counts.waits += 1;
        poll_fn(|task| {
            *lock(&self.waker) = Some(task.waker().clone());
            loop {
                return Poll::Ready(match self.mapped.try_recv() {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(self.failed(error.to_string())),
                    Err(TryRecvError::Disconnected) => {
                        Err(self.failed("the transfer was dropped".to_string()))
                    }
                    Err(TryRecvError::Empty) if IN_BROWSER => return Poll::Pending,
                    Err(TryRecvError::Empty) => match self.context.wait(None, "a readback") {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    },
                });
            }
        })
        .await?;
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
