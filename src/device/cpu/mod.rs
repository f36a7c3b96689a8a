//! The CPU device: the vocabulary in plain Rust, on every core. It is the reference that the WGSL is held against, and
//! the device that runs where there is no GPU.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::device::Readback;
use crate::device::kernels::*;
use crate::device::readback::State;
use crate::device::shapes::{self, Conv2d, Pool2d};
use crate::error::{Error, Result};
use crate::tensor::{DType, Storage, Tensor};

mod activations;
mod arena;
mod attack;
mod batch_norm;
mod color;
mod conv2d;
mod elementwise;
mod exp;
mod gemm;
mod images;
mod l2_normalize;
mod nt_xent;
mod optimizer;
mod parallel;
mod pool;
mod product;
mod reduce;
mod resized_crop;
mod scratch;
mod softmax_cross_entropy;
mod storage;
#[cfg(feature = "threads")]
mod threads;
mod uniform;
mod vectorised;
mod winograd;

use activations::Activations;
use arena::{Arena, Buffer};
pub(crate) use storage::CpuStorage;
use storage::{CpuData, read, write};
#[cfg(feature = "threads")]
pub use threads::with_threads;

/// The processor as a device.
#[derive(Default)]
pub struct CpuDevice {
    arena: Arc<Arena>,
    without_winograd: bool,
}

impl CpuDevice {
    pub fn new() -> Self {
        Self::default()
    }

    /// The device with every convolution as a product of matrices: what Winograd's method is compared with.
    pub fn without_winograd() -> Self {
        CpuDevice {
            without_winograd: true,
            ..Self::default()
        }
    }

    /// A buffer of `len` floats to fill; its content is not defined. Hand it to [`CpuDevice::floats`].
    fn take(&self, len: usize) -> Buffer {
        self.arena.take(len)
    }

    /// The filled `buffer` as a tensor.
    fn floats(&self, shape: &[usize], buffer: Buffer) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), buffer.len());
        self.tensor(shape, DType::F32, CpuData::F32(RwLock::new(buffer)))
    }

    /// The integers as a tensor.
    fn integers(&self, shape: &[usize], values: Vec<u32>) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        self.tensor(shape, DType::U32, CpuData::U32(RwLock::new(values)))
    }

    fn tensor(&self, shape: &[usize], dtype: DType, data: CpuData) -> Tensor {
        let storage = CpuStorage::new(data, self.arena.clone());
        Tensor::new(shape, dtype, Storage::Cpu(Arc::new(storage)))
    }
}

/// The memory of a tensor that must be on this device.
fn data<'a>(operation: &'static str, name: &str, x: &'a Tensor) -> Result<&'a CpuData> {
    match &x.storage {
        Storage::Cpu(storage) => Ok(&storage.data),
        Storage::Gpu(_) => Err(Error::shape(
            operation,
            format!("{name} is on a GPU; upload it to the CPU device"),
        )),
    }
}

fn wrong_type(operation: &'static str, name: &str, x: &Tensor, expected: DType) -> Error {
    Error::shape(
        operation,
        format!("{name} holds {:?}; expected {expected:?}", x.dtype()),
    )
}

/// Reads a f32 tensor.
fn read_f32<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockReadGuard<'a, Buffer>> {
    match data(operation, name, x)? {
        CpuData::F32(lock) => Ok(read(lock)),
        _ => Err(wrong_type(operation, name, x, DType::F32)),
    }
}

/// Changes a f32 tensor.
fn write_f32<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockWriteGuard<'a, Buffer>> {
    match data(operation, name, x)? {
        CpuData::F32(lock) => Ok(write(lock)),
        _ => Err(wrong_type(operation, name, x, DType::F32)),
    }
}

/// Reads a u32 tensor.
fn read_u32<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockReadGuard<'a, Vec<u32>>> {
    match data(operation, name, x)? {
        CpuData::U32(lock) => Ok(read(lock)),
        _ => Err(wrong_type(operation, name, x, DType::U32)),
    }
}

/// Changes a u32 tensor.
fn write_u32<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockWriteGuard<'a, Vec<u32>>> {
    match data(operation, name, x)? {
        CpuData::U32(lock) => Ok(write(lock)),
        _ => Err(wrong_type(operation, name, x, DType::U32)),
    }
}

/// Reads a u8 tensor.
fn read_u8<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockReadGuard<'a, Vec<u8>>> {
    match data(operation, name, x)? {
        CpuData::U8(lock) => Ok(read(lock)),
        _ => Err(wrong_type(operation, name, x, DType::U8)),
    }
}

/// Changes a u8 tensor.
fn write_u8<'a>(
    operation: &'static str,
    name: &str,
    x: &'a Tensor,
) -> Result<RwLockWriteGuard<'a, Vec<u8>>> {
    match data(operation, name, x)? {
        CpuData::U8(lock) => Ok(write(lock)),
        _ => Err(wrong_type(operation, name, x, DType::U8)),
    }
}

impl Kernels for CpuDevice {
    fn name(&self) -> String {
        "cpu".to_string()
    }

    fn memory(&self) -> MemoryUse {
        self.arena.memory()
    }

    fn in_host_memory(&self) -> bool {
        true
    }

    fn upload(&self, data: HostSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        let dtype = shapes::host_slice("upload", data, shape)?;
        let data = match data {
            HostSlice::F32(values) => {
                let mut buffer = self.arena.take(values.len());
                buffer.copy_from_slice(values);
                CpuData::F32(RwLock::new(buffer))
            }
            HostSlice::U32(values) => CpuData::U32(RwLock::new(values.to_vec())),
            HostSlice::U8(values) => CpuData::U8(RwLock::new(values.to_vec())),
        };
        Ok(self.tensor(shape, dtype, data))
    }

    fn overwrite(&self, x: &Tensor, data: HostSlice<'_>) -> Result<()> {
        let dtype = shapes::host_slice("overwrite", data, x.shape())?;
        x.expect("overwrite", "x", x.shape(), dtype)?;
        match data {
            HostSlice::F32(values) => write_f32("overwrite", "x", x)?.copy_from_slice(values),
            HostSlice::U32(values) => write_u32("overwrite", "x", x)?.copy_from_slice(values),
            HostSlice::U8(values) => write_u8("overwrite", "x", x)?.copy_from_slice(values),
        }
        Ok(())
    }

    fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let len = shapes::check_elements("zeros", shape)?;
        let data = match dtype {
            DType::F32 => {
                let mut buffer = self.arena.take(len);
                buffer.fill(0.0);
                CpuData::F32(RwLock::new(buffer))
            }
            DType::F16 => {
                let mut values = self.take_activations(len, dtype);
                values.for_chunks(parallel::CHUNK, |_, part| part.fill(0.0));
                return Ok(self.activations(shape, values));
            }
            DType::U32 => CpuData::U32(RwLock::new(vec![0; len])),
            DType::U8 => CpuData::U8(RwLock::new(vec![0; len])),
        };
        Ok(self.tensor(shape, dtype, data))
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        match x.dtype() {
            DType::F32 => self.upload(HostSlice::F32(&read_f32("copy", "x", x)?), x.shape()),
            DType::F16 => activations::cast(self, x, DType::F16),
            DType::U32 => self.upload(HostSlice::U32(&read_u32("copy", "x", x)?), x.shape()),
            DType::U8 => self.upload(HostSlice::U8(&read_u8("copy", "x", x)?), x.shape()),
        }
    }

    fn download(&self, x: &Tensor) -> Result<Readback> {
        let bytes = match x.dtype() {
            DType::F32 => bytemuck::cast_slice(&read_f32("download", "x", x)?).to_vec(),
            DType::F16 => match activations::read_activations("download", "x", x)?.values() {
                Activations::F16(values) => bytemuck::cast_slice(values).to_vec(),
                Activations::F32(values) => bytemuck::cast_slice(values).to_vec(),
            },
            DType::U32 => bytemuck::cast_slice(&read_u32("download", "x", x)?).to_vec(),
            DType::U8 => read_u8("download", "x", x)?.to_vec(),
        };
        Ok(Readback(State::Ready(bytes)))
    }

    fn submit(&self) -> Result<()> {
        Ok(())
    }

    fn cast(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        activations::cast(self, x, dtype)
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
        conv2d::conv2d_batch_norm(self, x, w, conv, norm, activation)
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
            first_moment,
            second_moment,
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
