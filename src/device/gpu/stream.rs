//! The command stream: kernels and copies are recorded back to back and submitted together.

use std::collections::HashMap;
use std::sync::Arc;

use super::buffers::{Buffer, GpuStorage};
use super::compile::Pipeline;
use super::context::{Context, lock};
use super::kernels::{Kernel, copy_words, shader};
use super::timestamps::Timing;
use crate::device::IN_BROWSER;
use crate::device::profiler::KernelLaunch;
use crate::error::{Error, Result};

/// Size of the uniform buffer: one slot per dispatch of a submission.
const UNIFORM_BYTES: u64 = 256 * 1024;
/// Maximum size of the uniform of one dispatch.
pub(super) const PARAMS_BYTES: usize = 128;
/// The queue copies written data to staging memory. After this many bytes the copies are flushed,
/// so staging memory holds at most about three times as many.
const STAGED_BYTES: usize = 1 << 20;
/// Size at which the cache of bind groups is emptied. A step of ResNet-50 uses 2,000 to 6,000.
const MAX_BIND_GROUPS: usize = 20_000;

/// The part of a buffer that is bound to a kernel, in bytes.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) buffer: Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Part {
    fn overlaps(&self, other: &Part) -> bool {
        self.buffer.number == other.buffer.number
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }
}

/// Shader and name of a kernel, and number, offset and size of each bound part.
type BindGroupKey = (usize, &'static str, Vec<(u64, u64, u64)>);

/// Counts of the work since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    pub dispatches: u64,
    pub submissions: u64,
    /// Created bind groups, without those found in the cache.
    pub bind_groups: u64,
    /// Created buffers, for tensors and readbacks, without those found in the pool.
    pub allocations: u64,
    /// Readbacks that the host waited for.
    pub waits: u64,
}

impl StreamCounts {
    /// The counts since `before`.
    pub fn since(self, before: StreamCounts) -> StreamCounts {
        StreamCounts {
            dispatches: self.dispatches - before.dispatches,
            submissions: self.submissions - before.submissions,
            bind_groups: self.bind_groups - before.bind_groups,
            allocations: self.allocations - before.allocations,
            waits: self.waits - before.waits,
        }
    }
}

/// A recorded command, which is encoded when it is submitted: until then, threads compile its
/// kernel.
struct Command {
    work: Work,
    /// The timestamps of its start and end.
    timed: Option<Timestamps>,
}

type Timestamps = (wgpu::QuerySet, [u32; 2]);

enum Work {
    Dispatch {
        pipeline: Arc<Pipeline>,
        group: wgpu::BindGroup,
        /// The offset of the uniform, if the kernel has one.
        offset: Option<u32>,
        workgroups: [u32; 2],
    },
    /// Copies the first bytes of a part to a buffer.
    Copy(Part, wgpu::Buffer, u64),
    /// Fills a part with zeros.
    Clear(Part),
    /// Stores the first timestamps of a set in a buffer, from an offset on.
    Resolve(wgpu::QuerySet, u32, wgpu::Buffer, u64),
}

pub(crate) struct Stream {
    /// What was recorded since the last submission.
    commands: Vec<Command>,
    /// The uniforms of the dispatches since the last submission, one per slot. They are written
    /// once per submission. The queue runs writes and submissions in order.
    uniforms: Vec<u8>,
    uniform_buffer: wgpu::Buffer,
    uniform_slot: usize,
    bind_groups: HashMap<BindGroupKey, wgpu::BindGroup>,
    /// Bytes written since `last_flush`; see [`Context::limit_staging`].
    staged: usize,
    last_flush: Option<wgpu::SubmissionIndex>,
    /// If kernels are timed, each is a pass of its own.
    timing: Option<Timing>,
    pub(crate) counts: StreamCounts,
}

impl Stream {
    pub(crate) fn new(device: &wgpu::Device, limits: &wgpu::Limits) -> Self {
        Stream {
            commands: Vec::new(),
            uniforms: Vec::with_capacity(UNIFORM_BYTES as usize),
            uniform_buffer: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("uniforms"),
                size: UNIFORM_BYTES,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            uniform_slot: (limits.min_uniform_buffer_offset_alignment as usize).max(PARAMS_BYTES),
            bind_groups: HashMap::new(),
            staged: 0,
            last_flush: None,
            timing: None,
            counts: StreamCounts::default(),
        }
    }

    /// Replaces the timing of kernels. Returns the previous timing.
    pub(crate) fn set_timing(&mut self, timing: Option<Timing>) -> Option<Timing> {
        std::mem::replace(&mut self.timing, timing)
    }

    pub(crate) fn timing(&mut self) -> Option<&mut Timing> {
        self.timing.as_mut()
    }

    /// Records a command between passes. `name` is its name in timings.
    fn record(&mut self, context: &Context, name: &'static str, work: Work) {
        let timing = self.timing.as_mut();
        let timed = timing.and_then(|timing| timing.next_copy(&context.device, name));
        self.commands.push(Command { work, timed });
    }

    /// Records a dispatch.
    fn record_dispatch(&mut self, context: &Context, kernel: &'static Kernel, work: Work) {
        let name = [shader(kernel.shader).0.name, kernel.name];
        let timing = self.timing.as_mut();
        let timed = timing.map(|timing| timing.next(&context.device, name));
        self.commands.push(Command { work, timed });
        self.counts.dispatches += 1;
    }

    /// Encodes the recorded commands. Dispatches without timestamps share passes.
    fn encode(&mut self, context: &Context) -> Result<wgpu::CommandBuffer> {
        let descriptor = wgpu::CommandEncoderDescriptor { label: None };
        let mut encoder = context.device.create_command_encoder(&descriptor);
        let mut open: Option<wgpu::ComputePass<'static>> = None;
        for Command { work, timed } in self.commands.drain(..) {
            if timed.is_some() || !matches!(work, Work::Dispatch { .. }) {
                open = None;
            }
            let copy_timed = timed
                .as_ref()
                .filter(|_| !matches!(work, Work::Dispatch { .. }));
            if let Some((set, [start, _])) = copy_timed {
                encoder.write_timestamp(set, *start);
            }
            match &work {
                Work::Dispatch {
                    pipeline,
                    group,
                    offset,
                    workgroups: [x, y],
                } => {
                    let mut pass = match open.take() {
                        Some(pass) => pass,
                        None => open_pass(&mut encoder, timed.as_ref()),
                    };
                    pass.set_pipeline(pipeline.get(context)?);
                    pass.set_bind_group(0, group, offset.as_slice());
                    pass.dispatch_workgroups(*x, *y, 1);
                    open = Some(pass).filter(|_| timed.is_none());
                }
                Work::Copy(from, to, bytes) => {
                    encoder.copy_buffer_to_buffer(&from.buffer.raw, from.offset, to, 0, *bytes);
                }
                Work::Clear(part) => {
                    encoder.clear_buffer(&part.buffer.raw, part.offset, Some(part.size));
                }
                Work::Resolve(set, count, to, offset) => {
                    encoder.resolve_query_set(set, 0..*count, to, *offset);
                }
            }
            if let Some((set, [_, end])) = copy_timed {
                encoder.write_timestamp(set, *end);
            }
        }
        drop(open);
        Ok(encoder.finish())
    }

    fn submit(&mut self, context: &Context) -> Result<()> {
        if self.commands.is_empty() {
            return Ok(());
        }
        let commands = self.encode(context);
        if !self.uniforms.is_empty() {
            context
                .queue
                .write_buffer(&self.uniform_buffer, 0, &self.uniforms);
            self.uniforms.clear();
        }
        context.queue_submit(Some(commands?));
        self.counts.submissions += 1;
        Ok(())
    }

    fn bind_group(
        &mut self,
        context: &Context,
        kernel: &'static Kernel,
        pipeline: &Pipeline,
        parts: &[Part],
    ) -> wgpu::BindGroup {
        let ranges = parts
            .iter()
            .map(|part| (part.buffer.number, part.offset, part.size))
            .collect();
        let key = (kernel.shader, kernel.name, ranges);
        if let Some(found) = self.bind_groups.get(&key) {
            return found.clone();
        }
        let uniform = (kernel.params > 0).then(|| wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &self.uniform_buffer,
                offset: 0,
                size: wgpu::BufferSize::new(PARAMS_BYTES as u64),
            }),
        });
        let storage =
            kernel
                .storage
                .iter()
                .zip(parts)
                .map(|(binding, part)| wgpu::BindGroupEntry {
                    binding: binding.number,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &part.buffer.raw,
                        offset: part.offset,
                        size: wgpu::BufferSize::new(part.size),
                    }),
                });
        let entries: Vec<_> = uniform.into_iter().chain(storage).collect();
        let group = context
            .device
            .create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.name),
                layout: &pipeline.layout,
                entries: &entries,
            });
        if self.bind_groups.len() >= MAX_BIND_GROUPS {
            self.bind_groups.clear();
        }
        self.bind_groups.insert(key, group.clone());
        self.counts.bind_groups += 1;
        group
    }
}

/// Opens a pass, with these timestamps of its start and end.
fn open_pass(
    encoder: &mut wgpu::CommandEncoder,
    timed: Option<&Timestamps>,
) -> wgpu::ComputePass<'static> {
    let timestamp_writes =
        timed.map(
            |(query_set, [start, end])| wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: Some(*start),
                end_of_pass_write_index: Some(*end),
            },
        );
    encoder
        .begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes,
        })
        .forget_lifetime()
}

impl Context {
    /// Records a dispatch of `workgroups` workgroups along one dimension. `parts` are in the order
    /// of the kernel's storage bindings.
    pub(crate) fn launch(
        self: &Arc<Self>,
        kernel: &'static Kernel,
        params: &[u8],
        parts: &[Part],
        workgroups: usize,
    ) -> Result<()> {
        if workgroups == 0 {
            return Ok(());
        }
        if parts.len() != kernel.storage.len() || params.len() > PARAMS_BYTES {
            return Err(Error::shape(
                kernel.name,
                format!(
                    "{} tensors and {} bytes of parameters; expected {} tensors and at most \
                     {PARAMS_BYTES} bytes",
                    parts.len(),
                    params.len(),
                    kernel.storage.len()
                ),
            ));
        }
        if let Some(part) = parts.iter().find(|part| part.size > self.binding_limit()) {
            return Err(Error::device(
                &self.name,
                format!(
                    "kernel {} binds {} bytes of one tensor and the adapter allows {}; use a \
                     smaller batch",
                    kernel.name,
                    part.size,
                    self.binding_limit()
                ),
            ));
        }
        check_aliases(kernel, parts)?;
        let mut copies = Vec::new();
        let separate;
        let parts = if IN_BROWSER {
            separate = self.separate(parts, &mut copies)?;
            &separate
        } else {
            parts
        };
        let [x, y] = fold(workgroups, self.limits.max_compute_workgroups_per_dimension)
            .ok_or_else(|| {
                Error::device(
                    &self.name,
                    format!(
                        "kernel {} needs {workgroups} workgroups, which exceeds the limit of the \
                         adapter; use a smaller batch",
                        kernel.name
                    ),
                )
            })?;
        let pipeline = self.pipeline(kernel);
        let mut stream = lock(&self.stream);
        if stream.uniforms.len() + stream.uniform_slot > UNIFORM_BYTES as usize {
            stream.submit(self)?;
        }
        let start = stream.uniforms.len();
        if kernel.params > 0 {
            let slot = stream.uniform_slot;
            stream.uniforms.extend_from_slice(params);
            stream.uniforms.resize(start + slot, 0);
        }
        let work = Work::Dispatch {
            group: stream.bind_group(self, kernel, &pipeline, parts),
            pipeline,
            offset: (kernel.params > 0).then_some(start as u32),
            workgroups: [x, y],
        };
        stream.record_dispatch(self, kernel, work);
        if self.profiler.is_recording() {
            let bindings = kernel.storage.iter().zip(parts);
            self.profiler.add_launch(KernelLaunch {
                call: 0,
                shader: shader(kernel.shader).0.name,
                entry_point: kernel.name,
                workgroup_size: kernel.workgroup_size,
                workgroup_bytes: kernel.workgroup_bytes,
                workgroups: [x, y],
                bindings: bindings
                    .map(|(binding, part)| (binding.name, binding.writes, part.size))
                    .collect(),
            });
        }
        Ok(())
    }

    /// Replaces parts that overlap an earlier one by copies, whose storage it adds to `copies`. A
    /// browser refuses bindings that overlap unless all of them are read-only, and storage bindings
    /// are declared as writable: see `buffers.rs`.
    fn separate(
        self: &Arc<Self>,
        parts: &[Part],
        copies: &mut Vec<GpuStorage>,
    ) -> Result<Vec<Part>> {
        let mut separate = parts.to_vec();
        for (i, part) in parts.iter().enumerate() {
            if parts[..i].iter().any(|earlier| earlier.overlaps(part)) {
                let copy = GpuStorage::allocate(self, part.size as usize)?;
                let words = part.size as u32 / 4;
                let params = bytemuck::bytes_of(&[words, 0, 0]).to_vec();
                let both = [part.clone(), copy.whole()];
                let workgroups = words.div_ceil(copy_words::COPY.workgroup_size[0]) as usize;
                self.launch(&copy_words::COPY, &params, &both, workgroups)?;
                separate[i] = Part {
                    size: part.size,
                    ..copy.whole()
                };
                copies.push(copy);
            }
        }
        Ok(separate)
    }

    /// Records a copy of the first `bytes` bytes of a part, a multiple of 4, to a mappable buffer.
    pub(crate) fn copy_to_staging(&self, from: &Part, to: &wgpu::Buffer, bytes: u64) {
        let work = Work::Copy(from.clone(), to.clone(), bytes);
        lock(&self.stream).record(self, "copy", work);
    }

    /// Records a command that fills a part with zeros.
    pub(crate) fn clear(&self, part: &Part) {
        lock(&self.stream).record(self, "clear", Work::Clear(part.clone()));
    }

    /// Records the transfer of the first `count` timestamps of `set` to a buffer.
    pub(crate) fn resolve(&self, set: &wgpu::QuerySet, count: u32, to: &wgpu::Buffer, offset: u64) {
        let work = Work::Resolve(set.clone(), count, to.clone(), offset);
        lock(&self.stream).record(self, "timestamps", work);
    }

    /// Submits everything recorded so far.
    pub(crate) fn submit(&self) -> Result<()> {
        lock(&self.stream).submit(self)?;
        self.check()
    }

    /// Replaces the first bytes of a part, after all kernels that were recorded so far.
    pub(crate) fn write(&self, to: &Part, bytes: &[u8]) -> Result<()> {
        self.submit()?;
        let buffer = &to.buffer.raw;
        for (i, chunk) in bytes.chunks(STAGED_BYTES).enumerate() {
            let offset = to.offset + (i * STAGED_BYTES) as u64;
            let whole = chunk.len() / 4 * 4;
            self.queue.write_buffer(buffer, offset, &chunk[..whole]);
            if whole < chunk.len() {
                let mut last = [0; 4];
                last[..chunk.len() - whole].copy_from_slice(&chunk[whole..]);
                self.queue
                    .write_buffer(buffer, offset + whole as u64, &last);
            }
            self.limit_staging(chunk.len())?;
        }
        self.check()
    }

    /// Counts `bytes` more staged bytes. Once there are [`STAGED_BYTES`], flushes them and waits
    /// for the previous flush, whose staging memory is then reused.
    fn limit_staging(&self, bytes: usize) -> Result<()> {
        let mut stream = lock(&self.stream);
        stream.staged += bytes;
        if stream.staged < STAGED_BYTES {
            return Ok(());
        }
        stream.staged = 0;
        let flush = self.queue_submit(None);
        let Some(previous) = stream.last_flush.replace(flush) else {
            return Ok(());
        };
        drop(stream);
        self.wait(Some(previous), "an upload")
    }
}

/// Fails if a written binding overlaps another binding, since the result would depend on the order
/// of the invocations.
fn check_aliases(kernel: &Kernel, parts: &[Part]) -> Result<()> {
    let bound = || kernel.storage.iter().zip(parts).enumerate();
    for (i, (binding, part)) in bound().filter(|(_, (binding, _))| binding.writes) {
        let mut others = bound().filter(|&(other, _)| other != i);
        if let Some((_, (other, _))) = others.find(|(_, (_, other))| part.overlaps(other)) {
            let (written, other) = (binding.name, other.name);
            return Err(Error::shape(
                kernel.name,
                format!("{written}, which the kernel writes, overlaps {other}; copy one first"),
            ));
        }
    }
    Ok(())
}

/// Two factors of at most `limit`, whose product is `count` or slightly larger.
fn fold(count: usize, limit: u32) -> Option<[u32; 2]> {
    let limit = limit as usize;
    let y = count.div_ceil(limit);
    let x = count.div_ceil(y);
    (y <= limit).then_some([x as u32, y as u32])
}

#[cfg(test)]
mod tests {
    use super::super::kernels::copy_vectors as copy;
    use super::{Buffer, Part, check_aliases, fold};

    #[test]
    fn a_written_tensor_is_bound_once() {
        let (device, _queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
        let buffer = |number| Buffer {
            raw: device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 1024,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            }),
            number,
        };
        let (one, other) = (buffer(1), buffer(2));
        let part = |buffer: &Buffer, offset| Part {
            buffer: buffer.clone(),
            offset,
            size: 256,
        };
        let check = |from, to| check_aliases(&copy::COPY, &[from, to]);
        assert!(check(part(&one, 0), part(&one, 256)).is_ok(), "adjacent");
        assert!(check(part(&one, 0), part(&other, 0)).is_ok(), "two buffers");
        let error = check(part(&one, 256), part(&one, 256)).unwrap_err();
        assert!(error.to_string().contains("overlaps"), "{error}");
        assert!(check(part(&one, 0), part(&one, 128)).is_err(), "partly");
    }

    #[test]
    fn a_long_grid_is_folded_into_two_dimensions() {
        assert_eq!(fold(1, 65_535), Some([1, 1]));
        assert_eq!(fold(65_535, 65_535), Some([65_535, 1]));
        assert_eq!(fold(65_536, 65_535), Some([32_768, 2]));
        let [x, y] = fold(1_000_003, 65_535).unwrap();
        assert!(x <= 65_535 && x * y >= 1_000_003);
        assert_eq!(fold(usize::MAX / 2, 65_535), None);
    }
}
