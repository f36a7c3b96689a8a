//! Records which operations a device ran, with their work and their times.
//!
//! The CPU uses the host's clock, since its operations return when they are finished. A GPU uses
//! the adapter's clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use web_time::Instant;

use super::Device;
use super::op::bytes;
use crate::error::Result;
use crate::tensor::Tensor;

/// The work of a call, as its shapes determine it: the floating-point operations of the formula,
/// and one transfer of each operand. Additional work of an implementation (packing, repeated reads
/// of tiles) and saved work (Winograd's method) do not count, so that rates can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// A multiply-add counts as two.
    pub flops: u64,
    /// Bytes read and written, each operand once.
    pub bytes: u64,
    /// The shapes of the tensors read, then of those written.
    pub shapes: [Vec<Vec<usize>>; 2],
    /// See [`super::Op::label`].
    pub label: Option<String>,
}

impl Work {
    /// The work of moving a tensor to or from the device.
    pub(crate) fn of_transfer(read: Option<&Tensor>, written: Option<&Tensor>) -> Self {
        let mut work = Work::default();
        if let Some(x) = read {
            work.bytes += bytes(x);
            work.shapes[0].push(x.shape().to_vec());
        }
        if let Some(y) = written {
            work.writes(y);
        }
        work
    }

    pub(super) fn writes(&mut self, y: &Tensor) {
        self.bytes += bytes(y);
        self.shapes[1].push(y.shape().to_vec());
    }
}

/// One operation that ran.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: &'static str,
    pub work: Work,
    /// The training step, as given to [`Profiler::begin_step`].
    pub step: u64,
}

/// An interval in which a kernel ran, in seconds.
#[derive(Clone, Debug)]
pub struct Span {
    /// The index of the call in [`Recording::calls`].
    pub call: usize,
    /// On a GPU, the shader and its entry point, or the copy. A call may launch several kernels.
    pub launched: Option<String>,
    pub start: f64,
    pub end: f64,
}

/// A kernel launch of a traced call.
#[derive(Clone, Debug)]
pub struct KernelLaunch {
    /// The index of the call in [`Trace::calls`].
    pub call: usize,
    pub shader: &'static str,
    pub entry_point: &'static str,
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    pub workgroups: [u32; 2],
    /// The name of each tensor, whether the kernel writes it, and the bound bytes.
    pub bindings: Vec<(&'static str, bool, u64)>,
}

/// The calls between [`Device::start_trace`] and [`Device::stop_trace`], and their kernel launches
/// on a GPU.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub calls: Vec<Call>,
    pub launches: Vec<KernelLaunch>,
}

/// The clock of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's, around each call.
    Host,
    /// The adapter's, around each launch.
    Adapter,
    /// None: the adapter has no timestamps.
    Missing,
}

/// Everything that ran between [`Device::start_recording`] and [`Device::stop_recording`].
#[derive(Clone, Debug)]
pub struct Recording {
    pub clock: Clock,
    pub calls: Vec<Call>,
    pub spans: Vec<Span>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// The interval of each call on the host.
    spans: Vec<Span>,
    launches: Vec<KernelLaunch>,
    step: u64,
}

/// Collects the calls of one device while it records.
pub struct Profiler {
    is_recording: AtomicBool,
    state: Mutex<State>,
    opened: Instant,
}

impl Default for Profiler {
    fn default() -> Self {
        Profiler {
            is_recording: AtomicBool::new(false),
            state: Mutex::default(),
            opened: Instant::now(),
        }
    }
}

impl Profiler {
    pub(crate) fn is_recording(&self) -> bool {
        self.is_recording.load(Ordering::Relaxed)
    }

    /// Assigns the calls that follow to training step `step`.
    pub fn begin_step(&self, step: u64) {
        self.state().step = step;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a kernel launch of the call that was begun last.
    pub(super) fn add_launch(&self, launch: KernelLaunch) {
        let mut state = self.state();
        if let Some(call) = state.calls.len().checked_sub(1) {
            state.launches.push(KernelLaunch { call, ..launch });
        }
    }

    fn seconds(&self) -> f64 {
        self.opened.elapsed().as_secs_f64()
    }

    /// Adds a call and returns its index.
    fn begin(&self, name: &'static str) -> usize {
        let mut state = self.state();
        let step = state.step;
        state.calls.push(Call {
            name,
            work: Work::default(),
            step,
        });
        state.calls.len() - 1
    }

    fn end(&self, call: usize, start: f64, work: Work) {
        let end = self.seconds();
        let mut state = self.state();
        // Another thread may have ended the recording.
        if let Some(recorded) = state.calls.get_mut(call) {
            recorded.work = work;
            state.spans.push(Span {
                call,
                launched: None,
                start,
                end,
            });
        }
    }
}

impl Device {
    /// The record of this device's calls.
    pub fn profiler(&self) -> &Profiler {
        match self {
            Device::Cpu(cpu) => cpu.profiler(),
            Device::Gpu(gpu) => gpu.profiler(),
        }
    }

    /// Records every call from now on.
    pub fn start_recording(&self) {
        *self.profiler().state() = State::default();
        if let Device::Gpu(gpu) = self {
            gpu.start_timing();
        }
        self.profiler().is_recording.store(true, Ordering::Relaxed);
    }

    /// Records every call and kernel launch from now on, without times.
    pub fn start_trace(&self) {
        *self.profiler().state() = State::default();
        self.profiler().is_recording.store(true, Ordering::Relaxed);
    }

    /// Ends the trace. Does not wait for the device.
    pub fn stop_trace(&self) -> Trace {
        let profiler = self.profiler();
        profiler.is_recording.store(false, Ordering::Relaxed);
        let State {
            calls, launches, ..
        } = std::mem::take(&mut *profiler.state());
        Trace { calls, launches }
    }

    /// Ends the recording. Waits for the kernels of a GPU.
    ///
    /// # Errors
    /// `Error::Device` if the adapter was lost.
    pub fn stop_recording(&self) -> Result<Recording> {
        let profiler = self.profiler();
        profiler.is_recording.store(false, Ordering::Relaxed);
        let State { calls, spans, .. } = std::mem::take(&mut *profiler.state());
        let (clock, spans) = match self {
            Device::Cpu(_) => (Clock::Host, spans),
            Device::Gpu(gpu) => {
                let clock = if gpu.has_timestamps() {
                    Clock::Adapter
                } else {
                    Clock::Missing
                };
                let kernels = gpu.stop_timing()?.into_iter();
                let spans = kernels.map(|kernel| Span {
                    call: kernel.call,
                    launched: Some(kernel.name),
                    start: kernel.start,
                    end: kernel.end,
                });
                (clock, spans.collect())
            }
        };
        Ok(Recording {
            clock,
            calls,
            spans,
        })
    }

    /// Runs a call. If the device records, `work` determines the work from the result.
    pub(crate) fn record<T>(
        &self,
        name: &'static str,
        run: impl FnOnce() -> Result<T>,
        work: impl FnOnce(&T) -> Work,
    ) -> Result<T> {
        let profiler = self.profiler();
        if !profiler.is_recording() {
            return run();
        }
        let call = profiler.begin(name);
        if let Device::Gpu(gpu) = self {
            gpu.name_call(call);
        }
        let start = profiler.seconds();
        let output = run()?;
        profiler.end(call, start, work(&output));
        Ok(output)
    }
}
