//! Compilation of kernels. A driver takes milliseconds to seconds per kernel, so threads compile
//! the kernels of a step next to each other while the host records it. They are needed when its
//! commands are encoded.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use web_time::Instant;

use super::context::{Context, caught, lock};
use super::kernels::{Kernel, shader};
use crate::error::{Error, Result};

/// A kernel for an adapter.
pub(crate) struct Pipeline {
    kernel: &'static Kernel,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// The pipeline, or why the driver refused it.
    compiled: OnceLock<std::result::Result<wgpu::ComputePipeline, String>>,
}

impl Pipeline {
    /// The compiled kernel. Waits for the thread that compiles it, or compiles it if none does.
    ///
    /// # Errors
    /// `Error::Device` if the driver refused it.
    pub(crate) fn get(&self, context: &Context) -> Result<&wgpu::ComputePipeline> {
        let compiled = self
            .compiled
            .get_or_init(|| context.compile(self.kernel, &self.layout));
        compiled.as_ref().map_err(|why| {
            let (kernel, shader) = (self.kernel.name, shader(self.kernel.shader).0.name);
            let message =
                format!("kernel {kernel} of shader {shader} could not be compiled: {why}");
            Error::device(&context.name, message)
        })
    }
}

/// The kernels that an adapter has compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compiled {
    pub kernels: usize,
    /// The time that each kernel took, added up over threads.
    pub seconds: f64,
}

/// The kernels of a context, by shader and name, and the work of its threads.
#[derive(Default)]
pub(crate) struct Compiler {
    modules: Mutex<HashMap<usize, Arc<OnceLock<wgpu::ShaderModule>>>>,
    pipelines: Mutex<HashMap<(usize, &'static str), Arc<Pipeline>>>,
    #[cfg(not(target_arch = "wasm32"))]
    queue: Mutex<Queue>,
    compiled: Mutex<Compiled>,
}

/// The pipelines that threads compile next.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Default)]
struct Queue {
    waiting: std::collections::VecDeque<Arc<Pipeline>>,
    threads: usize,
}

impl Compiler {
    /// The shader and entry point of each kernel.
    pub(crate) fn names(&self) -> BTreeSet<(&'static str, &'static str)> {
        let pipelines = lock(&self.pipelines);
        let names = pipelines.keys();
        names
            .map(|&(index, name)| (shader(index).0.name, name))
            .collect()
    }

    pub(crate) fn compiled(&self) -> Compiled {
        *lock(&self.compiled)
    }
}

impl Context {
    /// The pipeline of `kernel`, whose compilation begins at its first use.
    pub(crate) fn pipeline(self: &Arc<Self>, kernel: &'static Kernel) -> Arc<Pipeline> {
        let key = (kernel.shader, kernel.name);
        if let Some(pipeline) = lock(&self.compiler.pipelines).get(&key) {
            return pipeline.clone();
        }
        let pipeline = Arc::new(Pipeline {
            kernel,
            layout: self.layout(kernel),
            compiled: OnceLock::new(),
        });
        lock(&self.compiler.pipelines).insert(key, pipeline.clone());
        self.compile_soon(pipeline.clone());
        pipeline
    }

    fn layout(&self, kernel: &'static Kernel) -> wgpu::BindGroupLayout {
        let uniform = (kernel.params > 0).then_some(wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        });
        let storage = kernel
            .storage
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.number,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    // Also for bindings that are only read: see `buffers.rs`.
                    ty: wgpu::BufferBindingType::Storage { read_only: false },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            });
        let entries: Vec<_> = uniform.into_iter().chain(storage).collect();
        self.device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.name),
                entries: &entries,
            })
    }

    /// Gives the pipeline to a thread. There are at most as many threads as processors, and each
    /// ends when nothing is left.
    #[cfg(not(target_arch = "wasm32"))]
    fn compile_soon(self: &Arc<Self>, pipeline: Arc<Pipeline>) {
        let mut queue = lock(&self.compiler.queue);
        queue.waiting.push_back(pipeline);
        let most = std::thread::available_parallelism().map_or(1, |count| count.get());
        if queue.threads >= most {
            return;
        }
        let context = self.clone();
        let compile = move || {
            loop {
                let mut queue = lock(&context.compiler.queue);
                let Some(pipeline) = queue.waiting.pop_front() else {
                    queue.threads -= 1;
                    return;
                };
                drop(queue);
                // Whoever uses the pipeline reports an error.
                drop(pipeline.get(&context));
            }
        };
        let thread = std::thread::Builder::new().name("compile".to_string());
        // Without a thread, the pipeline is compiled when it is needed.
        queue.threads += usize::from(thread.spawn(compile).is_ok());
    }

    /// A browser compiles in the background by itself.
    #[cfg(target_arch = "wasm32")]
    fn compile_soon(self: &Arc<Self>, _: Arc<Pipeline>) {}

    /// Compiles `kernel`, or returns why the driver refuses it.
    fn compile(
        &self,
        kernel: &'static Kernel,
        layout: &wgpu::BindGroupLayout,
    ) -> std::result::Result<wgpu::ComputePipeline, String> {
        let started = Instant::now();
        let scope = self.error_scope(wgpu::ErrorFilter::Validation);
        let module = lock(&self.compiler.modules)
            .entry(kernel.shader)
            .or_default()
            .clone();
        let module = module.get_or_init(|| self.module(kernel.shader));
        let pipeline_layout = self
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.name),
                bind_group_layouts: &[Some(layout)],
                immediate_size: 0,
            });
        let pipeline = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&pipeline_layout),
                module,
                entry_point: Some(kernel.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.pipeline_cache.get(),
            });
        let error = caught(scope);
        let mut compiled = lock(&self.compiler.compiled);
        compiled.kernels += 1;
        compiled.seconds += started.elapsed().as_secs_f64();
        match error {
            None => Ok(pipeline),
            Some(error) => Err(error.to_string()),
        }
    }

    fn module(&self, index: usize) -> wgpu::ShaderModule {
        let (shader, is_own) = shader(index);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(shader.name),
            source: wgpu::ShaderSource::Wgsl(shader.source.into()),
        };
        if self.runtime_checks || !is_own {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: a shader without run-time checks must not index outside its buffers, and its
        // loops must end. These shaders are part of this crate, their sizes come from checked
        // shapes, and the tests compare each of them with its checked form.
        unsafe {
            self.device
                .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }
}
