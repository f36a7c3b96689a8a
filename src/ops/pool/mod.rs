//! Pooling of the planes of `x [N, C, H, W]`, f32 or f16.
//!
//! | operation | result | backward |
//! | --- | --- | --- |
//! | [`MaxPool2d`] | the maximum of each window, and its position | each `dy` is added at that position |
//! | [`GlobalAveragePool`] | the mean of each plane, f32 `[N, C]` | `dx = dy / (H W)` |
//!
//! Padding counts as minus infinity. Of several equal maxima, the first is taken. NaN counts as
//! larger than any number; of several NaNs, any may be taken.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op, Output, product};
use crate::error::{Error, Result};
use crate::ops::conv2d::windows;
use crate::tensor::{DType, Tensor};

/// Window, stride and padding of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2dOptions {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Pool2dOptions {
    /// The shape of the result for `x_shape`.
    ///
    /// # Errors
    /// `Error::Shape` if the window does not fit, or if a window could contain only padding.
    pub fn result_shape(self, x_shape: [usize; 4]) -> Result<[usize; 4]> {
        let [n, c, h, w] = x_shape;
        let Pool2dOptions {
            kernel,
            stride,
            padding,
        } = self;
        if padding > kernel / 2 {
            let message = format!(
                "padding {padding} is more than half of kernel {kernel}: a window could contain padding only"
            );
            return Err(Error::shape("", message));
        }
        let size = |size| windows(size, kernel, stride, padding);
        Ok([n, c, size(h)?, size(w)?])
    }
}

/// The forward pass of max-pooling.
pub struct MaxPool2d<'a> {
    pub x: &'a Tensor,
    pub options: Pool2dOptions,
}

/// The result of a max-pooling.
#[derive(Clone, Debug)]
pub struct MaxPooled {
    pub y: Tensor,
    /// u32, of the shape of `y`: the index of each maximum within its H x W input plane.
    pub argmax: Tensor,
}

impl Output for MaxPooled {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.y, &self.argmax]
    }
}

/// The shapes of the input and of the result.
#[derive(Clone, Copy)]
pub struct PoolSizes {
    x: [usize; 4],
    y: [usize; 4],
}

impl Op for MaxPool2d<'_> {
    const NAME: &'static str = "max_pool2d";
    type Sizes = PoolSizes;
    type Output = MaxPooled;

    fn check(&self, check: &mut Check<'_>) -> Result<PoolSizes> {
        let x = check.nchw("x", self.x)?;
        let y = self.options.result_shape(x)?;
        Ok(PoolSizes { x, y })
    }

    fn flops(&self, sizes: PoolSizes) -> u64 {
        let window = self.options.kernel * self.options.kernel;
        window as u64 * product(&sizes.y)
    }
}

/// The backward pass of max-pooling: `dx` of shape `x_shape`.
pub struct MaxPool2dBackward<'a> {
    pub dy: &'a Tensor,
    pub argmax: &'a Tensor,
    pub x_shape: [usize; 4],
    pub options: Pool2dOptions,
}

impl Op for MaxPool2dBackward<'_> {
    const NAME: &'static str = "max_pool2d_backward";
    type Sizes = PoolSizes;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<PoolSizes> {
        let (x, y) = (self.x_shape, self.options.result_shape(self.x_shape)?);
        check.elements(&x)?;
        check.activation_of("dy", self.dy, &y)?;
        check.tensor("argmax", self.argmax, &y, DType::U32)?;
        Ok(PoolSizes { x, y })
    }

    fn flops(&self, sizes: PoolSizes) -> u64 {
        product(&sizes.y)
    }
}

/// The mean of each plane, f32 `[N, C]`.
pub struct GlobalAveragePool<'a> {
    pub x: &'a Tensor,
}

impl Op for GlobalAveragePool<'_> {
    const NAME: &'static str = "global_average_pool";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        let sizes = check.nchw("x", self.x)?;
        if self.x.is_empty() {
            return Err(check.error(format!(
                "x has shape {sizes:?}, and a mean of no elements is not defined; use 1 or more"
            )));
        }
        Ok(sizes)
    }

    fn flops(&self, sizes: [usize; 4]) -> u64 {
        product(&sizes)
    }
}

/// The backward pass of global average pooling: `dx` of shape `x_shape` and type `dtype`.
pub struct GlobalAveragePoolBackward<'a> {
    pub dy: &'a Tensor,
    pub x_shape: [usize; 4],
    pub dtype: DType,
}

impl Op for GlobalAveragePoolBackward<'_> {
    const NAME: &'static str = "global_average_pool_backward";
    type Sizes = [usize; 4];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 4]> {
        check.activation_type("x", self.dtype)?;
        check.elements(&self.x_shape)?;
        check.tensor("dy", self.dy, &self.x_shape[..2], DType::F32)?;
        Ok(self.x_shape)
    }

    fn flops(&self, [n, c, ..]: [usize; 4]) -> u64 {
        product(&[n, c])
    }
}

impl Var {
    /// Max-pooling of `x [N, C, H, W]`. Saves the position of each maximum.
    ///
    /// # Errors
    /// `Error::Shape` if the window does not fit.
    pub fn max_pool2d(&self, options: Pool2dOptions) -> Result<Var> {
        let x = self.tensor();
        let MaxPooled { y, argmax } = self.device().run(MaxPool2d { x, options })?;
        let x_shape = x.nchw(MaxPool2d::NAME, "x")?;
        Var::record(MaxPool2d::NAME, y, [("x", self)], move |device, dy| {
            Ok([device.run(MaxPool2dBackward {
                dy: &dy,
                argmax: &argmax,
                x_shape,
                options,
            })?])
        })
    }

    /// The mean of each plane of `[N, C, H, W]`, f32 or f16: `[N, C]`, f32. Saves nothing.
    ///
    /// # Errors
    /// `Error::Shape` if `x` does not have four dimensions, or has no elements.
    pub fn global_average_pool(&self) -> Result<Var> {
        let x = self.tensor();
        let y = self.device().run(GlobalAveragePool { x })?;
        let (x_shape, dtype) = (x.nchw(GlobalAveragePool::NAME, "x")?, x.dtype());
        let inputs = [("x", self)];
        Var::record(GlobalAveragePool::NAME, y, inputs, move |device, dy| {
            Ok([device.run(GlobalAveragePoolBackward {
                dy: &dy,
                x_shape,
                dtype,
            })?])
        })
    }
}
