//! A device around another one that notes what each kernel of the vocabulary had to do and when it ran: by the host's
//! clock on the CPU, whose kernels return when they are done, and by the adapter's on a GPU. While it does not record
//! it hands every call on and nothing more.

mod delegation;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Device;
use super::cpu::CpuDevice;
use super::gpu::{GpuDevice, StreamCounts};
use super::kernels::Kernels;
use crate::error::Result;
pub use work::Work;

/// A call of a kernel of the vocabulary.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method of [`Kernels`].
    pub kernel: &'static str,
    pub work: Work,
    /// The step that it belongs to, as given to [`ProfiledDevice::begin_step`].
    pub step: u64,
}

/// A time that a kernel ran, in seconds.
#[derive(Clone, Debug)]
pub struct Span {
    /// The index of the call in [`Recording::calls`].
    pub call: usize,
    /// On a GPU the shader and its entry point, or the copy; a call may launch several.
    pub launched: Option<String>,
    pub start: f64,
    pub end: f64,
}

/// Which clock the spans of a recording were taken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's, around each call.
    Host,
    /// The adapter's, around each launch.
    Adapter,
    /// None: the adapter has no timestamps.
    Missing,
}

/// What ran between [`ProfiledDevice::start`] and [`ProfiledDevice::stop`].
#[derive(Clone, Debug)]
pub struct Recording {
    pub clock: Clock,
    pub calls: Vec<Call>,
    pub spans: Vec<Span>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// When each call began and ended on the host.
    spans: Vec<Span>,
    step: u64,
}

/// The device that records.
pub struct ProfiledDevice {
    inner: Device,
    /// The inner device where it is a GPU.
    gpu: Option<Arc<GpuDevice>>,
    is_recording: AtomicBool,
    state: Mutex<State>,
    opened: Instant,
}

impl ProfiledDevice {
    /// Around the CPU device.
    pub fn cpu(device: CpuDevice) -> Self {
        Self::new(Arc::new(device), None)
    }

    /// Around a GPU device.
    pub fn gpu(device: Arc<GpuDevice>) -> Self {
        Self::new(device.clone(), Some(device))
    }

    fn new(inner: Device, gpu: Option<Arc<GpuDevice>>) -> Self {
        ProfiledDevice {
            inner,
            gpu,
            is_recording: AtomicBool::new(false),
            state: Mutex::default(),
            opened: Instant::now(),
        }
    }

    /// What a GPU device has done since it was opened; none on the CPU.
    pub fn counts(&self) -> Option<StreamCounts> {
        self.gpu.as_ref().map(|gpu| gpu.counts())
    }

    /// Records every call from now on.
    pub fn start(&self) {
        *self.state() = State::default();
        if let Some(gpu) = &self.gpu {
            gpu.start_timing();
        }
        self.is_recording.store(true, Ordering::Relaxed);
    }

    /// Says that the calls from now on belong to `step`.
    pub fn begin_step(&self, step: u64) {
        self.state().step = step;
    }

    /// Ends the recording, and waits for a GPU's kernels.
    ///
    /// # Errors
    /// `Error::Device` where a GPU was lost.
    pub fn stop(&self) -> Result<Recording> {
        self.is_recording.store(false, Ordering::Relaxed);
        let State { calls, spans, .. } = std::mem::take(&mut *self.state());
        let Some(gpu) = &self.gpu else {
            return Ok(Recording {
                clock: Clock::Host,
                calls,
                spans,
            });
        };
        let clock = match gpu.has_timestamps() {
            true => Clock::Adapter,
            false => Clock::Missing,
        };
        let spans = gpu
            .stop_timing()?
            .into_iter()
            .map(|timed| Span {
                call: timed.call,
                launched: Some(timed.kernel),
                start: timed.start,
                end: timed.end,
            })
            .collect();
        Ok(Recording {
            clock,
            calls,
            spans,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a call on by `run`; where calls are recorded, `work` says from the result what it had to do.
    fn call<T>(
        &self,
        kernel: &'static str,
        run: impl FnOnce(&dyn Kernels) -> Result<T>,
        work: impl FnOnce(&T) -> Work,
    ) -> Result<T> {
        if !self.is_recording.load(Ordering::Relaxed) {
            return run(self.inner.as_ref());
        }
        let number = {
            let mut state = self.state();
            let step = state.step;
            state.calls.push(Call {
                kernel,
                work: Work::default(),
                step,
            });
            state.calls.len() - 1
        };
        if let Some(gpu) = &self.gpu {
            gpu.name_call(number);
        }
        let start = self.opened.elapsed().as_secs_f64();
        let result = run(self.inner.as_ref())?;
        let end = self.opened.elapsed().as_secs_f64();
        let work = work(&result);
        let mut state = self.state();
        // The recording may have been ended by another thread.
        if let Some(call) = state.calls.get_mut(number) {
            call.work = work;
            state.spans.push(Span {
                call: number,
                launched: None,
                start,
                end,
            });
        }
        Ok(result)
    }
}
