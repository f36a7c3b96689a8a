//! The GPU device: the vocabulary in WGSL on wgpu. Each family's launches stand in a file of the shader's name.

use std::sync::Arc;

use crate::device::Readback;
use crate::device::kernels::*;
use crate::device::readback::State;
use crate::device::shapes::{self, Conv2d, Pool2d};
use crate::device::variants::{ShapeClass, VariantTable};
use crate::error::{Error, Result};
use crate::tensor::{DType, Storage, Tensor};

mod adapters;
mod buffers;
mod context;
mod pipeline_cache;
mod readback;
pub mod shaders;
mod stream;
mod timing;
mod tuning;

mod attack;
mod batch_norm;
mod cast;
mod color;
mod conv2d;
mod copy;
mod elementwise;
mod gemm;
mod images;
mod l2_normalize;
mod nt_xent;
mod optimizer;
mod pack;
mod pool;
mod reduce;
mod resized_crop;
mod softmax_cross_entropy;
mod uniform;

pub use adapters::{AdapterChoice, AdapterDescription, adapters};
pub(crate) use buffers::GpuStorage;
pub use context::GpuOptions;
use context::{Context, lock};
use gemm::Tile;
pub(crate) use readback::GpuReadback;
use shaders::EntryPoint;
use stream::Part;
pub use stream::StreamCounts;
pub use timing::TimedKernel;
pub use tuning::{Problem, Tuned};

/// A graphics processor as a device.
pub struct GpuDevice {
    context: Arc<Context>,
}

impl GpuDevice {
    /// Opens an adapter, waiting for it.
    ///
    /// # Errors
    /// `Error::Device` where there is no such adapter, or one that is too small, or it cannot be opened.
    pub fn open(options: GpuOptions) -> Result<Self> {
        pollster::block_on(Self::open_async(options))
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// As [`GpuDevice::open`].
    pub async fn open_async(options: GpuOptions) -> Result<Self> {
        Ok(GpuDevice {
            context: Arc::new(Context::open(&options).await?),
        })
    }

    /// What was done since the device was opened.
    pub fn counts(&self) -> StreamCounts {
        lock(&self.context.stream).counts
    }

    /// The table in use from now on.
    pub fn use_variants(&self, table: VariantTable) {
        *lock(&self.context.table) = table;
    }

    /// What the table in use picks of `tiles`; `padded` gives the elements of the result in whole tiles.
    fn choose(&self, class: &ShapeClass, tiles: &[Tile], padded: impl Fn(&Tile) -> usize) -> Tile {
        let there: Vec<_> = tiles
            .iter()
            .map(|tile| (tile.variant, padded(tile)))
            .collect();
        let variant = lock(&self.context.table).choose(class, &there);
        let chosen = tiles.iter().find(|tile| tile.variant == variant);
        *chosen.expect("every operation has a plain variant")
    }

    /// A tensor whose content is not defined.
    fn allocate(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let len = shapes::check_elements("allocate", shape)?;
        if dtype == DType::F16 && !self.context.has_f16 {
            return Err(Error::device(
                &self.context.name,
                "its kernels cannot read and write f16 (no SHADER_F16); use f32 (--precision f32), or another device",
            ));
        }
        let storage = GpuStorage::allocate(&self.context, len * dtype.bytes())?;
        Ok(Tensor::new(shape, dtype, Storage::Gpu(Arc::new(storage))))
    }

    /// An f32 tensor whose content is not defined.
    fn floats(&self, shape: &[usize]) -> Result<Tensor> {
        self.allocate(shape, DType::F32)
    }

    /// A tensor of host structs, as words.
    fn words<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Tensor> {
        let words: &[u32] = bytemuck::cast_slice(values);
        self.upload(HostSlice::U32(words), &[words.len()])
    }

    fn storage<'a>(
        &self,
        operation: &'static str,
        name: &str,
        x: &'a Tensor,
    ) -> Result<&'a GpuStorage> {
        match &x.storage {
            Storage::Gpu(storage) if storage.is_on(&self.context) => Ok(storage),
            _ => Err(Error::shape(
                operation,
                format!("{name} is not on {}; upload it there", self.context.name),
            )),
        }
    }

    /// All of a tensor, padded to whole vec4s.
    fn whole(&self, operation: &'static str, name: &str, x: &Tensor) -> Result<Part> {
        self.part(operation, name, x, 0, x.len())
    }

    /// `count` elements from `start`, padded to whole vec4s. `start` must be a multiple of 64 elements, of 128 where
    /// they are f16, which every adapter can bind.
    fn part(
        &self,
        operation: &'static str,
        name: &str,
        x: &Tensor,
        start: usize,
        count: usize,
    ) -> Result<Part> {
        let element = x.dtype().bytes();
        debug_assert_eq!(
            start * element % 256,
            0,
            "{operation}: {name} starts at {start}"
        );
        let whole = self.storage(operation, name, x)?.whole();
        Ok(Part {
            buffer: whole.buffer,
            offset: whole.offset + (start * element) as u64,
            size: ((count * element) as u64).next_multiple_of(16).max(16),
        })
    }

    /// Ranges `(start, count)` that cover `rows` rows of at most `row_elements` elements of four bytes each, so that
    /// each range fits a binding and starts at a multiple of 128 elements whatever part of a row is bound. f16 elements
    /// are counted like others, so that tensors of both types are cut alike.
    ///
    /// # Errors
    /// `Error::Device` where the smallest such range is larger than a binding.
    fn slices(
        &self,
        operation: &'static str,
        rows: usize,
        row_elements: &[usize],
    ) -> Result<Vec<(usize, usize)>> {
        let limit = (self.context.binding_limit / 4) as usize;
        let largest = row_elements.iter().copied().max().unwrap_or(1).max(1);
        if rows * largest <= limit {
            return Ok(vec![(0, rows)]);
        }
        // The fewest rows after which every tensor is at a multiple of 128 elements.
        let step = row_elements
            .iter()
            .map(|&elements| 128 / gcd(elements.max(1), 128))
            .max()
            .unwrap_or(1);
        let count = limit / largest / step * step;
        self.cut(operation, rows, count, step.min(rows) * largest)
    }

    /// Ranges `(start, count)` of `count` rows each that cover `rows` rows.
    ///
    /// # Errors
    /// `Error::Device` where not even one range fits a binding (`count` is 0), which `needed` elements would.
    fn cut(
        &self,
        operation: &'static str,
        rows: usize,
        count: usize,
        needed: usize,
    ) -> Result<Vec<(usize, usize)>> {
        if count == 0 && rows > 0 {
            return Err(Error::device(
                &self.context.name,
                format!(
                    "{operation} needs {} bytes of one tensor at once and the adapter binds {}; use smaller images or \
                     layers, or another device",
                    4 * needed,
                    self.context.binding_limit
                ),
            ));
        }
        Ok((0..rows)
            .step_by(count.max(1))
            .map(|start| (start, count.min(rows - start)))
            .collect())
    }

    /// `count` elements from `start`, wherever that is: the part begins up to 63 elements earlier (127 f16 ones), where
    /// every adapter can bind it, and the number of those elements comes with it.
    fn part_from(
        &self,
        operation: &'static str,
        name: &str,
        x: &Tensor,
        start: usize,
        count: usize,
    ) -> Result<(Part, usize)> {
        let skipped = start % (256 / x.dtype().bytes());
        let part = self.part(operation, name, x, start - skipped, skipped + count)?;
        Ok((part, skipped))
    }

    /// Ranges `(start, count)` that cover `rows` rows, each of `most` rows at most, so that every range of rows of
    /// `row_elements` elements of four bytes, or of two, fits a binding, given by [`GpuDevice::part_from`].
    ///
    /// # Errors
    /// `Error::Device` where one row is larger than a binding.
    fn row_ranges(
        &self,
        operation: &'static str,
        rows: usize,
        row_elements: &[usize],
        most: usize,
    ) -> Result<Vec<(usize, usize)>> {
        let limit = (self.context.binding_limit / 4) as usize;
        let largest = row_elements.iter().copied().max().unwrap_or(1).max(1);
        let fitting = if rows * largest <= limit {
            rows
        } else {
            (limit - 63) / largest
        };
        self.cut(operation, rows, fitting.min(most), largest + 63)
    }

    /// Records the kernel `entry`, or its twin where activations are f16; see [`Context::launch`].
    fn launch_for<P: bytemuck::Pod>(
        &self,
        dtype: DType,
        entry: &'static EntryPoint,
        params: P,
        parts: &[Part],
        workgroups: usize,
    ) -> Result<()> {
        self.launch(entry.for_activations(dtype), params, parts, workgroups)
    }

    /// Records a kernel; see [`Context::launch`].
    fn launch<P: bytemuck::Pod>(
        &self,
        entry: &'static EntryPoint,
        params: P,
        parts: &[Part],
        workgroups: usize,
    ) -> Result<()> {
        self.context
            .launch(entry, bytemuck::bytes_of(&params), parts, workgroups)
    }
}

fn bytes_of(data: HostSlice<'_>) -> &[u8] {
    match data {
        HostSlice::F32(values) => bytemuck::cast_slice(values),
        HostSlice::U32(values) => bytemuck::cast_slice(values),
        HostSlice::U8(values) => values,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Kernels for GpuDevice {
    fn name(&self) -> String {
        self.context.name.clone()
    }

    fn memory(&self) -> MemoryUse {
        self.context.pool.memory.read()
    }

    fn in_host_memory(&self) -> bool {
        self.context.in_host_memory
    }

    fn variants(&self) -> Option<VariantTable> {
        Some(lock(&self.context.table).clone())
    }

    fn upload(&self, data: HostSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        let dtype = shapes::host_slice("upload", data, shape)?;
        let x = self.allocate(shape, dtype)?;
        self.context
            .write(&self.storage("upload", "x", &x)?.whole(), bytes_of(data))?;
        Ok(x)
    }

    fn overwrite(&self, x: &Tensor, data: HostSlice<'_>) -> Result<()> {
        let dtype = shapes::host_slice("overwrite", data, x.shape())?;
        x.expect("overwrite", "x", x.shape(), dtype)?;
        self.context
            .write(&self.storage("overwrite", "x", x)?.whole(), bytes_of(data))
    }

    fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let x = self.allocate(shape, dtype)?;
        self.context.clear(&self.storage("zeros", "x", &x)?.whole());
        Ok(x)
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.allocate(x.shape(), x.dtype())?;
        copy::copy_elements(self, "copy", (x, 0), (&y, 0), x.len())?;
        Ok(y)
    }

    fn download(&self, x: &Tensor) -> Result<Readback> {
        let bytes = x.len() * x.dtype().bytes();
        let part = &self.storage("download", "x", x)?.whole();
        Ok(Readback(State::Gpu(GpuReadback::start(
            &self.context,
            part,
            bytes,
        )?)))
    }

    fn submit(&self) -> Result<()> {
        self.context.submit()
    }

    fn cast(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        cast::cast(self, x, dtype)
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        elementwise::add(self, a, b)
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        elementwise::relu(self, x)
    }

    fn relu_backward(&self, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
        elementwise::relu_backward(self, dy, y)
    }

    fn relu_backward_in_place(&self, dy: &Tensor, y: &Tensor) -> Result<()> {
        elementwise::relu_backward_in_place(self, dy, y)
    }

    fn scale(&self, factor: f32, x: &Tensor) -> Result<Tensor> {
        elementwise::scale(self, factor, x)
    }

    fn axpy(&self, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
        elementwise::axpy(self, factor, x, y)
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        reduce::sum(self, x)
    }

    fn sum_rows(&self, x: &Tensor) -> Result<Tensor> {
        reduce::sum_rows(self, x)
    }

    fn broadcast(&self, s: &Tensor, shape: &[usize]) -> Result<Tensor> {
        elementwise::broadcast(self, s, shape)
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        elementwise::concat(self, a, b)
    }

    fn slice(&self, x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
        elementwise::slice(self, x, start, count)
    }

    fn check_finite(&self, x: &Tensor, flag: &Tensor) -> Result<()> {
        reduce::check_finite(self, x, flag)
    }

    fn gemm(&self, options: Gemm, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        gemm::gemm(self, options, a, b)
    }

    fn linear(&self, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
        gemm::linear(self, x, w, bias)
    }

    fn conv2d(&self, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Tensor> {
        conv2d::conv2d(self, x, w, conv)
    }

    fn conv2d_dx(
        &self,
        dy: &Tensor,
        w: &Tensor,
        x_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor> {
        conv2d::conv2d_dx(self, dy, w, x_shape, conv)
    }

    fn conv2d_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor> {
        conv2d::conv2d_dw(self, dy, x, w_shape, conv)
    }

    fn batch_norm_statistics(&self, x: &Tensor) -> Result<BatchStatistics> {
        batch_norm::batch_norm_statistics(self, x)
    }

    fn batch_norm(
        &self,
        x: &Tensor,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor> {
        batch_norm::batch_norm(self, x, norm, activation)
    }

    fn batch_norm_training_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        batch_norm::backward(self, dy, x, norm, rectified, Statistics::OfTheBatch)
    }

    fn batch_norm_training_backward_in_place(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        batch_norm::training_backward_in_place(self, dy, x, norm, rectified)
    }

    fn batch_norm_evaluation_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        batch_norm::backward(self, dy, x, norm, rectified, Statistics::Constant)
    }

    fn batch_norm_evaluation_dx(
        &self,
        dy: &Tensor,
        norm: &ChannelNorm,
        y: Option<&Tensor>,
    ) -> Result<Tensor> {
        batch_norm::batch_norm_evaluation_dx(self, dy, norm, y)
    }

    fn conv2d_batch_norm(
        &self,
        x: &Tensor,
        w: &Tensor,
        conv: Conv2d,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor> {
        self.batch_norm(&self.conv2d(x, w, conv)?, norm, activation)
    }

    fn update_running_statistics(
        &self,
        running: &BatchStatistics,
        batch: &BatchStatistics,
        update: RunningUpdate,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        batch_norm::update_running_statistics(self, running, batch, update, gate)
    }

    fn max_pool2d(&self, x: &Tensor, pool: Pool2d) -> Result<MaxPool> {
        pool::max_pool2d(self, x, pool)
    }

    fn max_pool2d_backward(
        &self,
        dy: &Tensor,
        argmax: &Tensor,
        x_shape: [usize; 4],
        pool: Pool2d,
    ) -> Result<Tensor> {
        pool::max_pool2d_backward(self, dy, argmax, x_shape, pool)
    }

    fn global_average_pool(&self, x: &Tensor) -> Result<Tensor> {
        pool::global_average_pool(self, x)
    }

    fn global_average_pool_backward(
        &self,
        dy: &Tensor,
        x_shape: [usize; 4],
        x_dtype: DType,
    ) -> Result<Tensor> {
        pool::global_average_pool_backward(self, dy, x_shape, x_dtype)
    }

    fn l2_normalize(&self, x: &Tensor, eps: f32) -> Result<Normalized> {
        l2_normalize::l2_normalize(self, x, eps)
    }

    fn l2_normalize_backward(&self, dy: &Tensor, forward: &Normalized, eps: f32) -> Result<Tensor> {
        l2_normalize::l2_normalize_backward(self, dy, forward, eps)
    }

    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<RowLoss> {
        softmax_cross_entropy::softmax_cross_entropy(self, logits, labels)
    }

    fn softmax_cross_entropy_backward(
        &self,
        dloss: &Tensor,
        logits: &Tensor,
        labels: &Tensor,
        forward: &RowLoss,
    ) -> Result<Tensor> {
        softmax_cross_entropy::softmax_cross_entropy_backward(self, dloss, logits, labels, forward)
    }

    fn nt_xent(&self, z: &Tensor, temperature: f32) -> Result<RowLoss> {
        nt_xent::nt_xent(self, z, temperature)
    }

    fn nt_xent_backward(
        &self,
        dloss: &Tensor,
        z: &Tensor,
        temperature: f32,
        forward: &RowLoss,
    ) -> Result<Tensor> {
        nt_xent::nt_xent_backward(self, dloss, z, temperature, forward)
    }

    fn sgd_step(
        &self,
        options: SgdStep,
        parameter: &Tensor,
        gradient: &Tensor,
        momentum: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        optimizer::sgd_step(self, options, parameter, gradient, momentum, gate)
    }

    fn adam_step(
        &self,
        options: AdamStep,
        parameter: &Tensor,
        gradient: &Tensor,
        first_moment: &Tensor,
        second_moment: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        optimizer::adam_step(
            self,
            options,
            parameter,
            gradient,
            [first_moment, second_moment],
            gate,
        )
    }

    fn gather_images(
        &self,
        images: &Tensor,
        first: usize,
        indices: &[u32],
        out: &Tensor,
    ) -> Result<()> {
        images::gather_images(self, images, first, indices, out)
    }

    fn resized_crop(&self, x: &Tensor, crops: &[ResizedCrop], size: usize) -> Result<Tensor> {
        resized_crop::resized_crop(self, x, crops, size)
    }

    fn color_transform(&self, x: &Tensor, transforms: &[ColorTransform]) -> Result<Tensor> {
        color::color_transform(self, x, transforms)
    }

    fn normalize(&self, x: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
        images::normalize(self, x, mean, std)
    }

    fn padded_crop(&self, x: &Tensor, padding: usize, crops: &[PaddedCrop]) -> Result<Tensor> {
        images::padded_crop(self, x, padding, crops)
    }

    fn rotate90(&self, x: &Tensor, quarter_turns: &[u32]) -> Result<Tensor> {
        images::rotate90(self, x, quarter_turns)
    }

    fn attack_step(
        &self,
        step: AttackStep,
        x: &Tensor,
        dx: &Tensor,
        clean: &Tensor,
    ) -> Result<Tensor> {
        attack::attack_step(self, step, x, dx, clean)
    }

    fn uniform(&self, key: NoiseKey, low: f32, high: f32, shape: &[usize]) -> Result<Tensor> {
        uniform::uniform(self, key, low, high, shape)
    }
}
