//! Arguments that are refused.

use super::options;
use crate::device::Device;
use crate::error::Result;
use crate::ops::batch_norm::{Activation, BatchStatistics, ChannelNorm};
use crate::ops::{Conv2d, Conv2dBatchNorm, Conv2dDw, Conv2dDx};
use crate::tensor::Tensor;
use crate::testing::{
    devices, different_devices, refused, refused_argument, zeros, zeros_or_refused, zeros_u32,
    zeros16,
};

const X: [usize; 4] = [2, 3, 5, 5];
const W: [usize; 4] = [4, 3, 3, 3];
const Y: [usize; 4] = [2, 4, 3, 3];

fn conv2d<'a>(x: &'a Tensor, w: &'a Tensor) -> Conv2d<'a> {
    let options = options(1, 0);
    Conv2d { x, w, options }
}

fn conv2d_dx<'a>(dy: &'a Tensor, w: &'a Tensor, x_shape: [usize; 4]) -> Conv2dDx<'a> {
    let options = options(1, 0);
    Conv2dDx {
        dy,
        w,
        x_shape,
        options,
    }
}

fn conv2d_dw<'a>(dy: &'a Tensor, x: &'a Tensor, w_shape: [usize; 4]) -> Conv2dDw<'a> {
    let options = options(1, 0);
    Conv2dDw {
        dy,
        x,
        w_shape,
        options,
    }
}

#[test]
fn arguments_that_do_not_fit() {
    for (name, device) in devices::all() {
        let (x, w, dy) = (
            &zeros(&device, &X),
            &zeros(&device, &W),
            &zeros(&device, &Y),
        );
        let refuse = |what: &str, x: &Tensor, w: &Tensor| {
            let result = device.run(conv2d(x, w));
            refused(name, &format!("conv2d: {what}"), result);
        };
        refuse("channels", x, &zeros(&device, &[4, 2, 3, 3]));
        refuse("kernel", x, &zeros(&device, &[4, 3, 6, 6]));
        refuse("kernel 0", x, &zeros(&device, &[4, 3, 0, 0]));
        refuse("dimensions", &zeros(&device, &[3, 5, 5]), w);
        refuse("type", &zeros_u32(&device, &X), w);
        let endless =
            [1 << 31, usize::MAX / 2, usize::MAX].map(|padding| options(1 << 40, padding));
        for options in endless.into_iter().chain([options(0, 0)]) {
            let result = device.run(Conv2d { x, w, options });
            refused(name, &format!("conv2d: {options:?}"), result);
        }

        let refuse = |what: &str, dy: &Tensor, x_shape| {
            let result = device.run(conv2d_dx(dy, w, x_shape));
            refused(name, &format!("conv2d_dx: {what}"), result);
        };
        refuse("x_shape", dy, [2, 3, 6, 5]);
        refuse("channels", dy, [2, 2, 5, 5]);
        refuse("dy", &zeros(&device, &[2, 5, 3, 3]), X);
        refuse("type", &zeros_u32(&device, &Y), X);

        let refuse = |what: &str, dy: &Tensor, x: &Tensor, w_shape| {
            let result = device.run(conv2d_dw(dy, x, w_shape));
            refused(name, &format!("conv2d_dw: {what}"), result);
        };
        refuse("w_shape", dy, x, [4, 3, 2, 2]);
        refuse("channels", dy, x, [4, 2, 3, 3]);
        refuse("dy", &zeros(&device, &[1, 4, 3, 3]), x, W);
        refuse("type", dy, &zeros_u32(&device, &X), W);
    }
}

/// A norm of `[3]` channels.
fn norm(device: &Device) -> ChannelNorm {
    ChannelNorm {
        statistics: BatchStatistics {
            mean: zeros(device, &[3]),
            variance: zeros(device, &[3]),
        },
        gamma: zeros(device, &[3]),
        beta: zeros(device, &[3]),
        eps: 1e-5,
    }
}

#[test]
fn a_batch_norm_that_does_not_fit() {
    for (name, device) in devices::all() {
        let (x, w) = (
            &zeros(&device, &[2, 3, 4, 5]),
            &zeros(&device, &[3, 3, 1, 1]),
        );
        let run = |norm: &ChannelNorm, activation: Activation<&Tensor>| -> Result<Tensor> {
            device.run(Conv2dBatchNorm {
                conv: conv2d(x, w),
                norm,
                activation,
            })
        };
        let fitting = norm(&device);
        let four = || zeros(&device, &[4]);
        let [mut mean, mut variance, mut gamma, mut beta, mut integers] =
            std::array::from_fn(|_| fitting.clone());
        mean.statistics.mean = four();
        variance.statistics.variance = four();
        gamma.gamma = zeros(&device, &[2]);
        beta.beta = four();
        integers.gamma = zeros_u32(&device, &[3]);
        for (what, norm) in [
            ("mean", mean),
            ("variance", variance),
            ("gamma", gamma),
            ("beta", beta),
            ("type of gamma", integers),
        ] {
            refused(name, what, run(&norm, Activation::Relu));
        }
        let shortcut = &zeros(&device, &[2, 3, 5, 4]);
        let result = run(&fitting, Activation::AddRelu(shortcut));
        refused(name, "shortcut", result);
        run(&fitting, Activation::AddRelu(x)).expect("arguments that fit");
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let (x, x16) = (&zeros(&device, &X), &zeros16(&device, &X));
        let (dy, dy16) = (&zeros(&device, &Y), &zeros16(&device, &Y));
        let w16 = &zeros16(&device, &W);
        refused_argument(name, "w", device.run(conv2d(x16, w16)));
        refused_argument(name, "w", device.run(conv2d_dx(dy16, w16, X)));
        refused_argument(name, "dy", device.run(conv2d_dw(dy, x16, W)));
        refused_argument(name, "dy", device.run(conv2d_dw(dy16, x, W)));
        let (norm, w) = (&norm(&device), &zeros(&device, &[3, 3, 1, 1]));
        let fused = device.run(Conv2dBatchNorm {
            conv: conv2d(x16, w),
            norm,
            activation: Activation::AddRelu(x),
        });
        refused_argument(name, "shortcut", fused);
    }
}

#[test]
fn images_without_elements() {
    for (name, device) in devices::all() {
        for x_shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            let x = &zeros(&device, &x_shape);
            let w = &zeros(&device, &[4, x_shape[1], 3, 3]);
            let options = options(1, 1);
            let y = device.run(Conv2d { x, w, options });
            zeros_or_refused(name, "conv2d", y);
        }
    }
}

#[test]
fn a_tensor_of_another_device() {
    for (case, device, other) in different_devices() {
        let (x, w) = (&zeros(&device, &X), &zeros(&device, &W));
        let (foreign_x, foreign_w) = (&zeros(&other, &X), &zeros(&other, &W));
        let foreign_dy = &zeros(&other, &Y);
        refused(&case, "conv2d: x", device.run(conv2d(foreign_x, w)));
        refused(&case, "conv2d: w", device.run(conv2d(x, foreign_w)));
        let dx = device.run(conv2d_dx(foreign_dy, w, X));
        refused(&case, "conv2d_dx: dy", dx);
        let dw = device.run(conv2d_dw(foreign_dy, x, W));
        refused(&case, "conv2d_dw: dy", dw);
    }
}
