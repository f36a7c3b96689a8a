//! The open adapter: its limits, pipelines and errors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use web_time::Instant;

use super::adapters::{self, AdapterChoice};
use super::buffers::Pool;
use super::compile::Compiler;
use super::kernels;
use super::matrices;
use super::stream::Stream;
use super::variants::{TableKey, Variant, VariantTable};
use crate::device::IN_BROWSER;
use crate::device::profiler::Profiler;
use crate::error::{Error, Result};

/// How to open an adapter.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    pub adapter: AdapterChoice,
    /// Whether shaders run with wgpu's bounds checks and loop limits. No kernel needs them; tests
    /// compare the results with and without.
    pub runtime_checks: bool,
    /// Maximum bytes per binding; by default, the limit of the adapter. Tests set a small limit, so
    /// that small tensors are cut into slices.
    pub binding_limit: Option<u64>,
    /// Whether tensors may be f16 if the adapter supports it. Tests turn it off.
    pub f16: bool,
    /// For tests and benches: the variant of products and convolutions that runs, instead of those
    /// that the table selects. Operations without this variant run `Plain`.
    pub variant: Option<Variant>,
    /// Whether products and convolutions of f16 factors may use the adapter's matrix units, through
    /// an experimental feature of wgpu.
    pub matrices: bool,
    /// How long the host waits for a GPU that finishes no submission, before it reports that the
    /// GPU hangs; by default, ten minutes, or two hours on a software adapter.
    pub stall: Option<Duration>,
}

/// No submission of a training takes this long on hardware: it has at most 1,024 dispatches.
const STALL: Duration = Duration::from_secs(10 * 60);
/// A dispatch of a software adapter may take many seconds.
const SOFTWARE_STALL: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a waiting host looks for finished submissions and reported errors.
const WAIT: Duration = Duration::from_secs(1);

impl Default for GpuOptions {
    fn default() -> Self {
        GpuOptions {
            adapter: AdapterChoice::Hardware,
            runtime_checks: false,
            binding_limit: None,
            f16: true,
            variant: None,
            matrices: false,
            stall: None,
        }
    }
}

/// An open adapter with its stream, pipelines and memory.
pub(crate) struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    /// Whether the adapter uses the host's memory.
    pub(crate) in_host_memory: bool,
    /// Whether the adapter is software that runs on the CPU.
    pub(crate) is_software: bool,
    pub(crate) name: String,
    /// Maximum bytes per binding; see [`Context::binding_limit`].
    limit: AtomicU64,
    /// Whether kernels can read and write f16.
    pub(crate) has_f16: bool,
    /// Locked while a thread polls or submits.
    polling: Mutex<()>,
    /// Rows of the cooperative matrices that kernels can use.
    pub(crate) matrices: Vec<u32>,
    /// Whether products of f32 round their factors to f16.
    pub(crate) rounds_factors: AtomicBool,
    /// Selects the variant for each shape.
    pub(crate) table: Mutex<VariantTable>,
    /// Identifies the adapter and driver of pipeline data; `None` if the adapter has no such data.
    pub(crate) pipeline_key: Option<String>,
    pub(crate) pipeline_cache: OnceLock<wgpu::PipelineCache>,
    pub(crate) runtime_checks: bool,
    pub(crate) compiler: Compiler,
    pub(crate) stream: Mutex<Stream>,
    pub(crate) pool: Pool,
    pub(crate) profiler: Profiler,
    /// Number of submissions that the GPU has finished.
    finished: Arc<AtomicU64>,
    stall: Duration,
    /// The first error that wgpu reported outside an error scope, or the loss of the device.
    failure: Arc<Mutex<Option<String>>>,
}

/// Bytes of each buffer with which free memory is measured.
const PROBED_BYTES: u64 = 1 << 30;

/// The limits that the kernels require.
const NEEDED_INVOCATIONS: u32 = 256;
const NEEDED_WORKGROUP_BYTES: u32 = 16 * 1024;
const NEEDED_STORAGE_BUFFERS: u32 = 8;

impl Context {
    pub(crate) async fn open(options: &GpuOptions) -> Result<Context> {
        let adapter = adapters::choose(&options.adapter).await?;
        let mut info = adapter.get_info();
        if info.name.is_empty() {
            // A browser need not tell which adapter it uses.
            info.name = "WebGPU".to_string();
        }
        let limits = adapter.limits();
        check_limits(&info.name, &limits)?;
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::PIPELINE_CACHE;
        wanted.set(wgpu::Features::SHADER_F16, options.f16);
        let mut features = adapter.features() & wanted;
        let matrices = if options.matrices && options.f16 {
            matrices::usable(&adapter)
        } else {
            Vec::new()
        };
        if !matrices.is_empty() {
            features |= matrices::FEATURES;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("parallax"),
                required_features: features,
                required_limits: limits.clone(),
                experimental_features: matrices::permission(&matrices),
                ..Default::default()
            })
            .await
            .map_err(|e| {
                Error::device(&info.name, format!("the adapter could not be opened: {e}"))
            })?;

        let failure = Arc::new(Mutex::new(None));
        let slot = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            remember(&slot, error.to_string());
        }));
        let slot = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                remember(
                    &slot,
                    format!("the device was lost ({reason:?}): {message}"),
                );
            }
        });

        let stream = Stream::new(&device, &limits);
        let key = TableKey {
            adapter: info.name.clone(),
            driver: adapters::driver(&info),
            shaders: kernels::digest(),
        };
        let table = match options.variant {
            None => VariantTable::shipped(key, limits.max_compute_workgroup_storage_size),
            Some(variant) => VariantTable::only(variant, key),
        };
        let stall = if adapters::is_software(&info) {
            SOFTWARE_STALL
        } else {
            STALL
        };
        let context = Context {
            device,
            queue,
            limit: AtomicU64::new(0),
            has_f16: features.contains(wgpu::Features::SHADER_F16),
            polling: Mutex::default(),
            matrices,
            rounds_factors: AtomicBool::new(false),
            table: Mutex::new(table),
            pipeline_key: if features.contains(wgpu::Features::PIPELINE_CACHE) {
                wgpu::util::pipeline_cache_key(&info)
            } else {
                None
            },
            pipeline_cache: OnceLock::new(),
            limits,
            in_host_memory: matches!(
                info.device_type,
                wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu
            ),
            finished: Arc::default(),
            stall: options.stall.unwrap_or(stall),
            is_software: adapters::is_software(&info),
            name: info.name,
            runtime_checks: options.runtime_checks,
            compiler: Compiler::default(),
            stream: Mutex::new(stream),
            pool: Pool::default(),
            profiler: Profiler::default(),
            failure,
        };
        context.limit_bindings(options.binding_limit);
        Ok(context)
    }

    /// Maximum bytes per binding.
    pub(crate) fn binding_limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the maximum bytes per binding; by default, the limit of the adapter.
    pub(crate) fn limit_bindings(&self, limit: Option<u64>) {
        let of_adapter = self.limits.max_storage_buffer_binding_size;
        let limit = limit.map_or(of_adapter, |limit| limit.min(of_adapter));
        // A multiple of 256 bytes, so that slices start at aligned offsets.
        self.limit
            .store((limit / 256 * 256).max(256), Ordering::Relaxed);
    }

    /// Submits commands, and counts the submission once the GPU has finished it.
    pub(crate) fn queue_submit(
        &self,
        commands: Option<wgpu::CommandBuffer>,
    ) -> wgpu::SubmissionIndex {
        let polling = lock(&self.polling);
        let index = self.queue.submit(commands);
        drop(polling);
        let finished = self.finished.clone();
        self.queue.on_submitted_work_done(move || {
            finished.fetch_add(1, Ordering::Relaxed);
        });
        index
    }

    /// Polls the device. One thread at a time polls or submits: if another one found the queue
    /// empty after a wait timed out, wgpu would panic.
    pub(super) fn poll(
        &self,
        how: wgpu::PollType,
    ) -> std::result::Result<wgpu::PollStatus, wgpu::PollError> {
        let _polling = lock(&self.polling);
        self.device.poll(how)
    }

    /// Waits until the GPU has finished a submission, by default the last one. `what` names the
    /// reason in errors. Returns at once in a browser.
    ///
    /// # Errors
    /// `Error::Device` if the device was lost, or if the GPU finishes no submission for too long.
    pub(crate) fn wait(&self, submission: Option<wgpu::SubmissionIndex>, what: &str) -> Result<()> {
        let failed = |why: String| Error::device(&self.name, format!("{what} failed: {why}"));
        let finished = || self.finished.load(Ordering::Relaxed);
        let (mut before, mut since) = (finished(), Instant::now());
        loop {
            let waited = self.poll(wgpu::PollType::Wait {
                submission_index: submission.clone(),
                timeout: Some(WAIT.min(self.stall)),
            });
            self.check()?;
            match waited {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) if finished() != before => {
                    (before, since) = (finished(), Instant::now());
                }
                Err(wgpu::PollError::Timeout) if since.elapsed() >= self.stall => {
                    return Err(failed(format!(
                        "the GPU has finished nothing for {} s, so it hangs; expected a submission to end within {} s; \
                         check the system's log for errors of the driver, and use a smaller batch",
                        since.elapsed().as_secs(),
                        self.stall.as_secs()
                    )));
                }
                Err(wgpu::PollError::Timeout) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }

    /// The bytes, at most `wanted`, that can be allocated now: they are allocated and freed.
    pub(crate) fn allocatable(&self, wanted: u64) -> u64 {
        let (mut held, mut bytes) = (Vec::new(), 0);
        while bytes < wanted {
            let size = (wanted - bytes).next_multiple_of(4).min(PROBED_BYTES);
            let size = size.min(self.limits.max_buffer_size / 4 * 4);
            match self.create_buffer(size, wgpu::BufferUsages::STORAGE) {
                Ok(buffer) => held.push(buffer),
                Err(_) => break,
            }
            bytes += size;
        }
        held.iter().for_each(wgpu::Buffer::destroy);
        // Frees the memory. An error of the device is reported by the next call.
        drop(self.poll(wgpu::PollType::Poll));
        bytes.min(wanted)
    }

    /// Fails if wgpu has reported an error since the device was opened.
    pub(crate) fn check(&self) -> Result<()> {
        match &*lock(&self.failure) {
            Some(message) => Err(Error::device(&self.name, message.clone())),
            None => Ok(()),
        }
    }

    /// Creates a buffer. Fails if there is no memory for it.
    pub(crate) fn create_buffer(
        &self,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let scope = self.error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        match caught(scope) {
            None => {
                lock(&self.stream).counts.allocations += 1;
                Ok(buffer)
            }
            Some(error) => Err(Error::device(
                &self.name,
                format!(
                    "no memory for {size} more bytes ({} in use): {error}; use a smaller batch",
                    self.pool.memory.read().current
                ),
            )),
        }
    }

    /// Opens a scope that catches the errors of the next calls, for [`caught`]. A browser reports
    /// errors later. There they are not caught, and [`Context::check`] fails.
    pub(super) fn error_scope(&self, errors: wgpu::ErrorFilter) -> Option<wgpu::ErrorScopeGuard> {
        (!IN_BROWSER).then(|| self.device.push_error_scope(errors))
    }
}

/// The error that a scope caught. On native backends, the future is ready at once.
pub(super) fn caught(scope: Option<wgpu::ErrorScopeGuard>) -> Option<wgpu::Error> {
    scope.and_then(|scope| pollster::block_on(scope.pop()))
}

/// Fails if the limits of an adapter are too small for the kernels.
fn check_limits(name: &str, limits: &wgpu::Limits) -> Result<()> {
    for (what, has, needs) in [
        (
            "invocations per workgroup",
            limits.max_compute_invocations_per_workgroup,
            NEEDED_INVOCATIONS,
        ),
        (
            "bytes of workgroup memory",
            limits.max_compute_workgroup_storage_size,
            NEEDED_WORKGROUP_BYTES,
        ),
        (
            "storage buffers per kernel",
            limits.max_storage_buffers_per_shader_stage,
            NEEDED_STORAGE_BUFFERS,
        ),
    ] {
        if has < needs {
            return Err(Error::device(
                name,
                format!(
                    "the adapter has {has} {what}; expected at least {needs}; use another \
                     adapter or the CPU"
                ),
            ));
        }
    }
    Ok(())
}

fn remember(slot: &Mutex<Option<String>>, message: String) {
    lock(slot).get_or_insert(message);
}

/// Locks a mutex, also after a panic: every critical section leaves its data consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gpu;
    use crate::ops::Gemm;
    use crate::tensor::{DType, Tensor};
    use crate::testing::devices;

    #[test]
    fn a_gpu_that_hangs_is_an_error() {
        let gpu = Gpu::open(GpuOptions {
            adapter: AdapterChoice::Named(devices::gpu(false).name()),
            stall: Some(Duration::from_millis(1)),
            ..GpuOptions::default()
        });
        let device = &gpu.expect("the adapter opens").into();
        let mut x = Tensor::zeros(&[1024, 1024], DType::F32, device).expect("it fits");
        for _ in 0..8 {
            x = device.run(Gemm::new(&x, &x)).expect("it is recorded");
        }
        let error = x.to_vec::<f32>().expect_err("far more than a millisecond");
        let message = error.to_string();
        assert!(
            message.contains("hangs") && message.contains("smaller batch"),
            "{message}"
        );
    }

    #[test]
    fn memory_that_is_there_can_be_allocated() {
        let device = devices::open_gpu(false, None);
        assert_eq!(device.allocatable(0), 0);
        assert_eq!(device.allocatable((3 << 20) + 1), (3 << 20) + 1);
    }

    #[test]
    fn the_error_names_the_missing_limit() {
        let enough = wgpu::Limits::default();
        assert!(check_limits("a card", &enough).is_ok());
        let error = check_limits(
            "a card",
            &wgpu::Limits {
                max_storage_buffers_per_shader_stage: 4,
                ..enough
            },
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "device a card: the adapter has 4 storage buffers per kernel; expected at least 8; use \
             another adapter or the CPU"
        );
    }
}
