//! The trait of operations, and the checks of their arguments before a device computes them.

use super::profiler::Work;
use super::{Cpu, Device, Gpu};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// An operation with its arguments. [`Device::run`] computes it.
///
/// `check` runs first. It validates the arguments and returns the sizes that the CPU and the GPU
/// compute with.
pub trait Op {
    /// The name in errors and profiles.
    const NAME: &'static str;
    /// The sizes that follow from the shapes of the arguments.
    type Sizes: Copy;
    type Output: Output;

    /// Returns the sizes if the arguments fit each other. Each tensor is checked by one method of
    /// `check`, which also counts its bytes for profiles.
    ///
    /// # Errors
    /// `Error::Shape` that names the argument, its value and what was expected.
    fn check(&self, check: &mut Check<'_>) -> Result<Self::Sizes>;

    /// Floating-point operations of the formula, for profiles. A multiply-add counts as two.
    /// The default is for operations without arithmetic.
    fn flops(&self, _sizes: Self::Sizes) -> u64 {
        0
    }

    /// Separates calls whose rates cannot be compared, for profiles: for example the kernel and
    /// stride of a convolution. It is called before the operation runs.
    fn label(&self, _sizes: Self::Sizes) -> Option<String> {
        None
    }
}

/// The implementation of an operation for one kind of device, [`Cpu`] or [`Gpu`].
pub trait RunOn<D>: Op {
    /// Computes the result. The arguments have passed `check`.
    ///
    /// # Errors
    /// `Error::Device` if memory is short or the adapter was lost.
    fn run(&self, device: &D, sizes: Self::Sizes) -> Result<Self::Output>;
}

/// The result of an operation.
pub trait Output {
    /// The tensors of the result.
    fn tensors(&self) -> Vec<&Tensor>;
}

impl Output for () {
    fn tensors(&self) -> Vec<&Tensor> {
        Vec::new()
    }
}

impl Output for Tensor {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![self]
    }
}

/// The product of `factors` in 64 bits, because a `usize` has 32 bits on some targets.
pub fn product(factors: &[usize]) -> u64 {
    factors.iter().map(|&factor| factor as u64).product()
}

/// Bytes of a tensor.
pub(super) fn bytes(x: &Tensor) -> u64 {
    product(&[x.len(), x.dtype().bytes()])
}

/// The checks of the arguments of one call. A check fails if its argument is invalid or on another
/// device, and the error names the argument.
pub struct Check<'a> {
    device: &'a Device,
    work: Work,
    /// Whether shapes are collected, for a profile.
    records_shapes: bool,
}

impl<'a> Check<'a> {
    pub(super) fn new(device: &'a Device, records_shapes: bool) -> Self {
        Check {
            device,
            work: Work::default(),
            records_shapes,
        }
    }

    /// The work of the call, once its result is known.
    pub(super) fn finish(self, flops: u64, label: Option<String>, output: &impl Output) -> Work {
        let mut work = self.work;
        (work.flops, work.label) = (flops, label);
        for y in output.tensors() {
            work.writes(y);
        }
        work
    }

    /// Fails unless `x` has this shape and element type.
    pub fn tensor(&mut self, name: &str, x: &Tensor, shape: &[usize], dtype: DType) -> Result<()> {
        self.on_device(name, x)?;
        x.expect("", name, shape, dtype)?;
        self.work.bytes += bytes(x);
        if self.records_shapes {
            self.work.shapes[0].push(x.shape().to_vec());
        }
        Ok(())
    }

    /// Fails unless `x` is an f32 tensor.
    pub fn f32(&mut self, name: &str, x: &Tensor) -> Result<()> {
        self.tensor(name, x, x.shape(), DType::F32)
    }

    /// Fails unless `x` is an f32 or f16 tensor.
    pub fn activation(&mut self, name: &str, x: &Tensor) -> Result<()> {
        self.activation_type(name, x.dtype())?;
        self.tensor(name, x, x.shape(), x.dtype())
    }

    /// Fails unless `x` is an f32 or f16 tensor of this shape.
    pub fn activation_of(&mut self, name: &str, x: &Tensor, shape: &[usize]) -> Result<()> {
        self.activation_type(name, x.dtype())?;
        self.tensor(name, x, shape, x.dtype())
    }

    /// Fails unless `dtype` is f32 or f16.
    pub fn activation_type(&self, name: &str, dtype: DType) -> Result<()> {
        match dtype {
            DType::F32 | DType::F16 => Ok(()),
            other => Err(self.error(format!("{name} is {other:?}; expected F32 or F16"))),
        }
    }

    /// Fails unless `b` has the shape and element type of `a`.
    pub fn same(&mut self, a: (&str, &Tensor), b: (&str, &Tensor)) -> Result<()> {
        self.tensor(b.0, b.1, a.1.shape(), a.1.dtype())
    }

    /// Fails if `a` and `b`, one of which is written, share their elements.
    pub fn distinct(&self, a: (&str, &Tensor), b: (&str, &Tensor)) -> Result<()> {
        if a.1.id() == b.1.id() {
            let message = format!("{} and {} are the same tensor; copy one first", a.0, b.0);
            return Err(self.error(message));
        }
        Ok(())
    }

    /// Counts the bytes that are written to `x`, a checked argument that is changed in place.
    pub fn changes(&mut self, x: &Tensor) {
        if self.records_shapes {
            self.work.writes(x);
        }
    }

    /// As [`Check::tensor`], for a tensor of any shape of which only `elements` elements are read.
    pub fn part(&mut self, name: &str, x: &Tensor, dtype: DType, elements: usize) -> Result<()> {
        self.on_device(name, x)?;
        x.expect("", name, x.shape(), dtype)?;
        self.work.bytes += product(&[elements, dtype.bytes()]);
        Ok(())
    }

    /// Counts the bytes of arguments in host memory.
    pub fn host<T>(&mut self, values: &[T]) {
        self.work.bytes += size_of_val(values) as u64;
    }

    /// The rows and columns of the f32 matrix `x`.
    pub fn matrix(&mut self, name: &str, x: &Tensor) -> Result<[usize; 2]> {
        let sizes = x.matrix("", name)?;
        self.f32(name, x)?;
        Ok(sizes)
    }

    /// The sizes N, C, H, W of the f32 or f16 tensor `x`.
    pub fn nchw(&mut self, name: &str, x: &Tensor) -> Result<[usize; 4]> {
        let sizes = x.nchw("", name)?;
        self.activation(name, x)?;
        Ok(sizes)
    }

    /// The number of elements of `shape`, if a kernel can index them with 32 bits.
    pub fn elements(&self, shape: &[usize]) -> Result<usize> {
        check_elements("", shape)
    }

    /// An error of this call.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::shape("", message)
    }

    fn on_device(&self, name: &str, x: &Tensor) -> Result<()> {
        if self.device.holds(x) {
            return Ok(());
        }
        Err(self.error(format!(
            "{name} is on {} and the operation runs on {}; copy one argument to the device of the others",
            x.device().name_beside(self.device),
            self.device.name()
        )))
    }
}

/// The number of elements of `shape`, if a kernel can index them with 32 bits. A size of 0 counts
/// as 1 for the limit, so the product of some sizes never overflows.
pub(crate) fn check_elements(operation: &'static str, shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size.max(1)))
        .filter(|&count| count <= u32::MAX as usize)
        .map(|_| shape.iter().product())
        .ok_or_else(|| {
            Error::shape(
                operation,
                format!("{shape:?} has more than 2^32 - 1 elements; use a smaller batch"),
            )
        })
}

impl Device {
    /// Computes `op` on this device. On a GPU, the call returns once the kernels are recorded.
    ///
    /// # Errors
    /// `Error::Shape` if an argument does not fit or is on another device; `Error::Device` if
    /// memory is short or the adapter was lost.
    pub fn run<O: RunOn<Cpu> + RunOn<Gpu>>(&self, op: O) -> Result<O::Output> {
        self.check_and_run(&op)
            .map_err(|error| error.of_operation(O::NAME))
    }

    /// As [`Device::run`]. On a GPU, an operation that supports it stores its results in these
    /// tensors, in the order of its outputs.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub(crate) fn run_into<O: RunOn<Cpu> + RunOn<Gpu>>(
        &self,
        op: O,
        results: Vec<Option<Tensor>>,
    ) -> Result<O::Output> {
        match self {
            Device::Gpu(gpu) => Device::Gpu(gpu.with_results(results)).run(op),
            Device::Cpu(_) => self.run(op),
        }
    }

    fn check_and_run<O: RunOn<Cpu> + RunOn<Gpu>>(&self, op: &O) -> Result<O::Output> {
        let is_recording = self.profiler().is_recording();
        let mut check = Check::new(self, is_recording);
        let sizes = op.check(&mut check)?;
        let run = || match self {
            Device::Cpu(cpu) => RunOn::<Cpu>::run(op, cpu, sizes),
            Device::Gpu(gpu) => RunOn::<Gpu>::run(op, gpu, sizes),
        };
        if !is_recording {
            return run();
        }
        let label = op.label(sizes);
        self.record(O::NAME, run, |output| {
            check.finish(op.flops(sizes), label, output)
        })
    }
}

// An operation that consists of others runs them with these methods. Their arguments are checked,
// and profiles attribute their kernels to the outer operation.

impl Cpu {
    /// Computes `op` as a part of another operation.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn run<O: RunOn<Cpu>>(&self, op: O) -> Result<O::Output> {
        let device = &Device::Cpu(self.clone());
        let sizes = op.check(&mut Check::new(device, false))?;
        op.run(self, sizes)
    }
}

impl Gpu {
    /// Computes `op` as a part of another operation.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn run<O: RunOn<Gpu>>(&self, op: O) -> Result<O::Output> {
        // The results are those of the outer operation.
        let gpu = &self.with_results(Vec::new());
        let sizes = op.check(&mut Check::new(&Device::Gpu(gpu.clone()), false))?;
        op.run(gpu, sizes)
    }
}
