//! The matrix product of textbooks, on a device of its own, without run-time checks like the
//! library's kernels.

use wgpu::util::DeviceExt;

pub struct Textbook {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    c: wgpu::Buffer,
    n: usize,
}

impl Textbook {
    /// A product of two `n` x `n` matrices on the first Vulkan, Metal or DirectX adapter whose name
    /// contains `name`.
    pub fn new(name: &str, n: usize, a: &[f32], b: &[f32]) -> Textbook {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
        let adapter = adapters
            .into_iter()
            .find(|adapter| {
                let info = adapter.get_info();
                let text = format!("{} {}", info.name, info.driver).to_lowercase();
                text.contains(&name.to_lowercase())
            })
            .expect("PARALLAX_BENCH_DEVICE names an adapter");
        let (device, queue) =
            pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))
                .expect("the adapter opens");
        // SAFETY: the kernel stays inside its buffers if n is a multiple of 64, and its loops end.
        let module = unsafe {
            device.create_shader_module_trusted(
                wgpu::include_wgsl!("gemm.wgsl"),
                wgpu::ShaderRuntimeChecks::unchecked(),
            )
        };
        assert!(n.is_multiple_of(64) && a.len() == n * n && b.len() == n * n);
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let buffer = |contents: &[u8], usage| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: None,
                contents,
                usage: usage | wgpu::BufferUsages::COPY_SRC,
            })
        };
        let params = buffer(
            bytemuck::bytes_of(&[n as u32, 0, 0, 0]),
            wgpu::BufferUsages::UNIFORM,
        );
        let a = buffer(bytemuck::cast_slice(a), wgpu::BufferUsages::STORAGE);
        let b = buffer(bytemuck::cast_slice(b), wgpu::BufferUsages::STORAGE);
        let c = buffer(&vec![0; 4 * n * n], wgpu::BufferUsages::STORAGE);
        let entries = [&params, &a, &b, &c].map(wgpu::Buffer::as_entire_binding);
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &std::array::from_fn::<_, 4, _>(|i| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: entries[i].clone(),
            }),
        });
        Textbook {
            device,
            queue,
            pipeline,
            bindings,
            c,
            n,
        }
    }

    /// Computes the product and waits for it.
    pub fn run(&self) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        let tiles = (self.n / 64) as u32;
        pass.dispatch_workgroups(tiles, tiles, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("the kernel ran");
    }

    /// The first row of the last product.
    pub fn first_row(&self) -> Vec<f32> {
        let size = 4 * self.n as u64;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.c, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| {
            result.expect("the buffer maps")
        });
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .expect("the copy ran");
        let view = staging.get_mapped_range(..).expect("it is mapped");
        bytemuck::cast_slice(&view).to_vec()
    }
}
