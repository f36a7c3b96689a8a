//! Launches of `shaders/elementwise.wgsl`: one invocation computes one vec4.

use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::device::gpu::kernels::elementwise::{self as kernels, Params};
use crate::device::gpu::{Grid, Kernel, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

/// The uniform and the grid of a slice.
fn vectors(slice: &Slice<'_>, factor: f32) -> (Params, Grid) {
    let params = Params {
        count: slice.rows.div_ceil(4),
        elements: slice.rows,
        factor,
    };
    (params, Grid::Invocations(params.count))
}

/// `y = f(inputs)`
fn map(
    gpu: &Gpu,
    kernel: &'static Kernel,
    inputs: &[(&'static str, &Tensor)],
    factor: f32,
) -> Result<Tensor> {
    let x = inputs[0].1;
    let y = gpu.allocate(x.shape(), x.dtype())?;
    let mut launch = gpu.launch(kernel).elements(x.len()).write("y", &y, 1);
    for &(name, x) in inputs {
        launch = launch.read(name, x, 1);
    }
    launch.run(|slice| vectors(slice, factor))?;
    Ok(y)
}

/// `y = f(y, x)`, in place.
fn change(
    gpu: &Gpu,
    kernel: &'static Kernel,
    y: &Tensor,
    (name, x): (&'static str, &Tensor),
) -> Result<()> {
    gpu.launch(kernel)
        .elements(y.len())
        .read(name, x, 1)
        .write("y", y, 1)
        .run(|slice| vectors(slice, 0.0))
}

impl RunOn<Gpu> for Add<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        map(gpu, &kernels::ADD, &[("a", self.a), ("b", self.b)], 0.0)
    }
}

impl RunOn<Gpu> for Relu<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        map(gpu, &kernels::RELU, &[("a", self.x)], 0.0)
    }
}

impl RunOn<Gpu> for ReluBackward<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        if self.dy.is_unshared() {
            let kernel = &kernels::RELU_BACKWARD_IN_PLACE;
            change(gpu, kernel, &self.dy, ("b", self.y))?;
            return Ok(self.dy.clone());
        }
        let inputs = [("a", &self.dy), ("b", self.y)];
        map(gpu, &kernels::RELU_BACKWARD, &inputs, 0.0)
    }
}

impl RunOn<Gpu> for Scale<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        map(gpu, &kernels::SCALE, &[("a", self.x)], self.factor)
    }
}

impl RunOn<Gpu> for Accumulate<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        if self.sum.is_unshared() {
            change(gpu, &kernels::ACCUMULATE, &self.sum, ("a", self.x))?;
            return Ok(self.sum.clone());
        }
        let inputs = [("a", &self.sum), ("b", self.x)];
        map(gpu, &kernels::ADD, &inputs, 0.0)
    }
}

impl RunOn<Gpu> for Broadcast<'_> {
    fn run(&self, gpu: &Gpu, len: usize) -> Result<Tensor> {
        let y = gpu.floats(self.shape)?;
        gpu.launch(&kernels::BROADCAST)
            .elements(len)
            .read("a", self.value, ..)
            .write("y", &y, 1)
            .run(|slice| vectors(slice, 0.0))?;
        Ok(y)
    }
}
