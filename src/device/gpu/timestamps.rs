//! Times of kernels and copies by the adapter's clock, from timestamp queries.

use super::buffers::Buffer;
use super::context::{Context, lock};
use super::readback::GpuReadback;
use super::stream::Part;
use super::{Gpu, Result};
use crate::device::block_on;
use crate::device::memory::next_storage_id;
use std::sync::Arc;

/// Timestamps per query set.
const QUERIES: u32 = wgpu::QUERY_SET_MAX_QUERIES;

/// The interval of a dispatch or copy, in seconds since the first one.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedKernel {
    /// The call that [`Gpu::name_call`] set.
    pub call: usize,
    /// The shader and its entry point, or the kind of copy.
    pub name: String,
    pub start: f64,
    pub end: f64,
}

/// The timestamps of dispatches and copies, in the order of recording.
pub(crate) struct Timing {
    /// Whether copies are timed too, which requires timestamps outside passes.
    copies: bool,
    call: usize,
    sets: Vec<wgpu::QuerySet>,
    recorded: Vec<(usize, [&'static str; 2])>,
}

impl Timing {
    fn new(features: wgpu::Features) -> Self {
        Timing {
            copies: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS),
            call: 0,
            sets: Vec::new(),
            recorded: Vec::new(),
        }
    }

    /// The query set and the indices of the two timestamps of the next kernel, named `name`.
    pub(crate) fn next(
        &mut self,
        device: &wgpu::Device,
        name: [&'static str; 2],
    ) -> (wgpu::QuerySet, [u32; 2]) {
        let first = 2 * self.recorded.len() as u32 % QUERIES;
        if first == 0 {
            self.sets
                .push(device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: QUERIES,
                }));
        }
        self.recorded.push((self.call, name));
        let set = self.sets.last().expect("the first kernel created one");
        (set.clone(), [first, first + 1])
    }

    /// As [`Timing::next`], for a copy. `None` if the adapter cannot time copies.
    pub(crate) fn next_copy(
        &mut self,
        device: &wgpu::Device,
        name: &'static str,
    ) -> Option<(wgpu::QuerySet, [u32; 2])> {
        self.copies.then(|| self.next(device, [name, ""]))
    }
}

impl Gpu {
    /// Whether the adapter can measure when a kernel starts and ends.
    pub fn has_timestamps(&self) -> bool {
        self.context
            .device
            .features()
            .contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Times every kernel from now on, each in a pass of its own. Has no effect without timestamps.
    pub fn start_timing(&self) {
        if self.has_timestamps() {
            let timing = Timing::new(self.context.device.features());
            lock(&self.context.stream).set_timing(Some(timing));
        }
    }

    /// Assigns the kernels that are recorded from now on to `call`.
    pub fn name_call(&self, call: usize) {
        if let Some(timing) = lock(&self.context.stream).timing() {
            timing.call = call;
        }
    }

    /// Ends the timing, waits for the kernels, and returns them in the order of recording.
    ///
    /// # Errors
    /// `Error::Device` if the adapter was lost.
    pub fn stop_timing(&self) -> Result<Vec<TimedKernel>> {
        let timing = lock(&self.context.stream).set_timing(None);
        match timing {
            Some(timing) if !timing.recorded.is_empty() => resolve(&self.context, timing),
            _ => Ok(Vec::new()),
        }
    }
}

fn resolve(context: &Arc<Context>, timing: Timing) -> Result<Vec<TimedKernel>> {
    let bytes = |stamps: u32| u64::from(stamps) * size_of::<u64>() as u64;
    let stamps = 2 * timing.recorded.len() as u32;
    let size = timing.sets.len() as u64 * bytes(QUERIES);
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let resolved = Part {
        buffer: Buffer {
            raw: context.create_buffer(size, usage)?,
            number: next_storage_id(),
        },
        offset: 0,
        size,
    };
    for (set, first) in timing.sets.iter().zip((0..).step_by(QUERIES as usize)) {
        let count = (stamps - first).min(QUERIES);
        context.resolve(set, count, &resolved.buffer.raw, bytes(first));
    }
    let readback = GpuReadback::start(context, &resolved, bytes(stamps) as usize)?;
    let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&block_on(readback.wait())?);
    let period = f64::from(context.queue.get_timestamp_period()) * 1e-9;
    // Relative to the first timestamp, so that f64 keeps all digits.
    let origin = ticks.iter().copied().min().unwrap_or(0);
    let seconds = |ticks: u64| (ticks - origin) as f64 * period;
    let kernels = timing.recorded.iter().zip(ticks.chunks_exact(2));
    Ok(kernels
        .map(|(&(call, [shader, entry]), stamps)| TimedKernel {
            call,
            name: match entry {
                "" => shader.to_string(),
                entry => format!("{shader}/{entry}"),
            },
            start: seconds(stamps[0]),
            end: seconds(stamps[1].max(stamps[0])),
        })
        .collect())
}
