//! Convolution (cross-correlation, as in torch) without bias: `x [N, C, H, W]`, `w [O, C, KH, KW]`,
//! `y [N, O, OH, OW]` with `OH = (H + 2 padding - KH) / stride + 1`.
//!
//! Forward: `y[n,o,i,j] = sum over c,u,v of x[n, c, i stride + u - padding, j stride + v - padding]
//! w[o,c,u,v]`. Backward: `dx` adds `dy
//! w` at the input positions that each output was computed from. `dw` sums `dy
//! x` over images and positions. Saves `x` if `dw` is needed, and `w` if `dx` is needed.
//!
//! `x`, `y` and their gradients are activations, f32 or f16. `w` and `dw` are f32; for f16
//! activations, `w` is rounded to f16 before it is multiplied.
//!
//! [`Conv2dBatchNorm`] computes a convolution, a batch norm with constant statistics and an
//! activation, for evaluation. Its backward pass:
//!
//! 1. if the activation is a ReLU, `dy` is set to 0 unless the result `y > 0`; the outcome is also
//!    the gradient of the shortcut
//! 2. the gradient of the convolution's result is `dy gamma / sqrt(variance + eps)`
//! 3. `dx` is computed from it as above

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use gpu::{dw_tiles, tiles};
pub(crate) use weights::{prepare_copies, share_copies};

use crate::autograd::Var;
use crate::device::gpu::variants::{Operation, ShapeClass};
use crate::device::{Check, Device, Op, product};
use crate::error::{Error, Result};
use crate::ops::batch_norm::{Activation, BatchNormDx, ChannelNorm, check_channels};
use crate::ops::elementwise::ReluBackward;
use crate::tensor::Tensor;

/// Stride and zero padding, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    pub stride: usize,
    pub padding: usize,
}

/// The sizes of a valid convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input height and width.
    pub h: usize,
    pub w: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel height and width.
    pub kh: usize,
    pub kw: usize,
    /// Output height and width.
    pub oh: usize,
    pub ow: usize,
    pub stride: usize,
    pub padding: usize,
}

impl ConvGeometry {
    /// The geometry of a convolution of `x_shape` with `w_shape`.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match, or are too large.
    pub fn new(x_shape: [usize; 4], w_shape: [usize; 4], options: Conv2dOptions) -> Result<Self> {
        let [n, c, h, w] = x_shape;
        let [o, w_c, kh, kw] = w_shape;
        let wrong = |message: String| Err(Error::shape("", message));
        if c != w_c {
            return wrong(format!(
                "x has {c} channels, and w of shape {w_shape:?} expects {w_c}"
            ));
        }
        if [n, c, h, w, o, kh, kw].contains(&0) {
            return wrong(format!(
                "x has shape {x_shape:?} and w has shape {w_shape:?}; expected sizes of 1 or more"
            ));
        }
        let Conv2dOptions { stride, padding } = options;
        let geometry = ConvGeometry {
            n,
            c,
            h,
            w,
            o,
            kh,
            kw,
            oh: windows(h, kh, stride, padding)?,
            ow: windows(w, kw, stride, padding)?,
            stride,
            padding,
        };
        crate::device::check_elements("", &geometry.x_shape())?;
        crate::device::check_elements("", &geometry.y_shape())?;
        Ok(geometry)
    }

    pub fn x_shape(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }

    pub fn w_shape(&self) -> [usize; 4] {
        [self.o, self.c, self.kh, self.kw]
    }

    pub fn y_shape(&self) -> [usize; 4] {
        [self.n, self.o, self.oh, self.ow]
    }

    pub fn options(&self) -> Conv2dOptions {
        Conv2dOptions {
            stride: self.stride,
            padding: self.padding,
        }
    }

    /// FLOPs of the forward pass, which are also those of each gradient. A multiply-add counts as
    /// two.
    pub fn flops(&self) -> u64 {
        product(&[2, self.n, self.o, self.oh, self.ow]) * product(&[self.c, self.kh, self.kw])
    }

    /// The class under which variants of this convolution are measured.
    pub(crate) fn class(&self, operation: Operation) -> ShapeClass {
        let sizes = [self.o, self.oh * self.ow, self.c];
        ShapeClass::convolution(operation, [self.kh, self.kw], self.stride, sizes)
    }

    fn label(&self) -> Option<String> {
        Some(format!("{}x{}/{}", self.kh, self.kw, self.stride))
    }
}

/// The number of positions of a window of `kernel` pixels along `size` pixels.
pub(crate) fn windows(size: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize> {
    let wrong = |message: String| Err(Error::shape("", message));
    if stride == 0 || kernel == 0 {
        return wrong(format!(
            "kernel {kernel} and stride {stride} must be at least 1"
        ));
    }
    // The kernels compute positions as i32.
    let padded = padding
        .checked_mul(2)
        .and_then(|both_sides| both_sides.checked_add(size))
        .filter(|&padded| padded <= i32::MAX as usize);
    match padded {
        None => wrong(format!(
            "an input of {size} with padding {padding} has more than 2^31 - 1 pixels; use less padding"
        )),
        Some(padded) if padded < kernel => wrong(format!(
            "a kernel of {kernel} does not fit an input of {size} with padding {padding}"
        )),
        Some(padded) => Ok((padded - kernel) / stride + 1),
    }
}

/// The forward pass, `y [N, O, OH, OW]`.
#[derive(Clone, Copy)]
pub struct Conv2d<'a> {
    pub x: &'a Tensor,
    pub w: &'a Tensor,
    pub options: Conv2dOptions,
}

impl Op for Conv2d<'_> {
    const NAME: &'static str = "conv2d";
    type Sizes = ConvGeometry;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<ConvGeometry> {
        let x_shape = check.nchw("x", self.x)?;
        let w_shape = self.w.nchw("", "w")?;
        check.f32("w", self.w)?;
        ConvGeometry::new(x_shape, w_shape, self.options)
    }

    fn flops(&self, g: ConvGeometry) -> u64 {
        g.flops()
    }

    fn label(&self, g: ConvGeometry) -> Option<String> {
        g.label()
    }
}

/// The gradient of the input, of shape `x_shape`.
pub struct Conv2dDx<'a> {
    pub dy: &'a Tensor,
    pub w: &'a Tensor,
    pub x_shape: [usize; 4],
    pub options: Conv2dOptions,
}

impl Op for Conv2dDx<'_> {
    const NAME: &'static str = "conv2d_dx";
    type Sizes = ConvGeometry;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<ConvGeometry> {
        let w_shape = self.w.nchw("", "w")?;
        check.f32("w", self.w)?;
        let g = ConvGeometry::new(self.x_shape, w_shape, self.options)?;
        check.activation_of("dy", self.dy, &g.y_shape())?;
        Ok(g)
    }

    fn flops(&self, g: ConvGeometry) -> u64 {
        g.flops()
    }

    fn label(&self, g: ConvGeometry) -> Option<String> {
        g.label()
    }
}

/// The gradient of the weight, f32, of shape `w_shape`.
pub struct Conv2dDw<'a> {
    pub dy: &'a Tensor,
    pub x: &'a Tensor,
    pub w_shape: [usize; 4],
    pub options: Conv2dOptions,
}

impl Op for Conv2dDw<'_> {
    const NAME: &'static str = "conv2d_dw";
    type Sizes = ConvGeometry;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<ConvGeometry> {
        let x_shape = check.nchw("x", self.x)?;
        let g = ConvGeometry::new(x_shape, self.w_shape, self.options)?;
        check.tensor("dy", self.dy, &g.y_shape(), self.x.dtype())?;
        Ok(g)
    }

    fn flops(&self, g: ConvGeometry) -> u64 {
        g.flops()
    }

    fn label(&self, g: ConvGeometry) -> Option<String> {
        g.label()
    }
}

/// A convolution, a batch norm and an activation, with the same bits as the separate operations. A
/// device may compute them in one pass over the result.
pub struct Conv2dBatchNorm<'a> {
    pub conv: Conv2d<'a>,
    pub norm: &'a ChannelNorm,
    pub activation: Activation<&'a Tensor>,
}

impl Op for Conv2dBatchNorm<'_> {
    const NAME: &'static str = "conv2d_batch_norm";
    type Sizes = ConvGeometry;
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<ConvGeometry> {
        let g = self.conv.check(check)?;
        check_channels(check, g.o, self.norm)?;
        if let Some(shortcut) = self.activation.shortcut() {
            check.tensor("shortcut", shortcut, &g.y_shape(), self.conv.x.dtype())?;
        }
        Ok(g)
    }

    fn flops(&self, g: ConvGeometry) -> u64 {
        g.flops() + self.activation.flops() * product(&g.y_shape())
    }

    fn label(&self, g: ConvGeometry) -> Option<String> {
        g.label()
    }
}

impl Var {
    /// A convolution without bias: `x [N, C, H, W]`, `w [O, C, KH, KW]`, result `[N, O, OH, OW]`.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match.
    pub fn conv2d(&self, w: &Var, options: Conv2dOptions) -> Result<Var> {
        let inputs = [("x", self), ("w", w)];
        let needs_dw = w.is_tracked();
        let slot = w.gradient_slot();
        let (x, w) = (self.tensor(), w.tensor());
        let y = self.device().run(Conv2d { x, w, options })?;
        let x_shape = x.nchw(Conv2d::NAME, "x")?;
        let w_shape = w.nchw(Conv2d::NAME, "w")?;
        let saved_w = self.is_tracked().then(|| w.clone());
        let saved_x = needs_dw.then(|| self.saved());
        Var::record_some(Conv2d::NAME, y, &inputs, move |device, dy| {
            let dy = &dy;
            // dw comes first, so that a recomputed x is freed before dx is allocated.
            let dw = saved_x.map(|x| {
                let x = &x.into_tensor(device)?;
                let dw = Conv2dDw {
                    dy,
                    x,
                    w_shape,
                    options,
                };
                device.run_into(dw, vec![slot])
            });
            let dw = dw.transpose()?;
            let dx = saved_w.map(|w| input_gradient(device, dy, &w, x_shape, options));
            Ok(vec![dx.transpose()?, dw])
        })
    }

    /// A convolution, a batch norm and an activation. Weight, norm and statistics are constants.
    /// Saves the result if the activation is a ReLU and a gradient is needed.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match.
    pub fn conv2d_batch_norm(
        &self,
        (w, options): (&Tensor, Conv2dOptions),
        norm: &ChannelNorm,
        activation: Activation<&Var>,
    ) -> Result<Var> {
        let x = self.tensor();
        let y = self.device().run(Conv2dBatchNorm {
            conv: Conv2d { x, w, options },
            norm,
            activation: activation.map(Var::tensor),
        })?;
        let x_shape = x.nchw(Conv2dBatchNorm::NAME, "x")?;
        let mut inputs = vec![("x", self)];
        inputs.extend(activation.shortcut().map(|shortcut| ("shortcut", shortcut)));
        let needs_dx = self.is_tracked();
        let needs_dshortcut = activation.shortcut().map(Var::is_tracked);
        let saved_y = match activation {
            Activation::Identity => None,
            Activation::Relu | Activation::AddRelu(_) => Some(y.clone()),
        };
        let (w, norm) = (w.clone(), norm.clone());
        Var::record_some(Conv2dBatchNorm::NAME, y, &inputs, move |device, dy| {
            let dx = |dy: &Tensor, y: Option<&Tensor>| {
                let dx = || {
                    let norm = &norm;
                    let dy = device.run(BatchNormDx { dy, norm, y })?;
                    input_gradient(device, &dy, &w, x_shape, options)
                };
                needs_dx.then(dx).transpose()
            };
            match (needs_dshortcut, &saved_y) {
                (Some(needed), Some(y)) => {
                    let dsum = device.run(ReluBackward { dy, y })?;
                    Ok(vec![dx(&dsum, None)?, needed.then_some(dsum)])
                }
                (_, y) => Ok(vec![dx(&dy, y.as_ref())?]),
            }
        })
    }
}

fn input_gradient(
    device: &Device,
    dy: &Tensor,
    w: &Tensor,
    x_shape: [usize; 4],
    options: Conv2dOptions,
) -> Result<Tensor> {
    device.run(Conv2dDx {
        dy,
        w,
        x_shape,
        options,
    })
}
