//! Tests of convolutions: the float64 reference, its own check, determinism and gradients.

mod agreement;
mod errors;

use super::{Conv2d, Conv2dDw, Conv2dDx, Conv2dOptions, ConvGeometry};
use crate::device::Device;
use crate::error::Result;
use crate::ops::batch_norm::{Activation, BatchStatistics, ChannelNorm};
use crate::tensor::Tensor;
use crate::testing::{
    Expected, Sum, check_gradients, check_reference, devices, dot, normal, normal_leaf, numbers,
    put, random, same_bits, signed,
};

/// Calls `product(x index, w index, y index)` for every product of the convolution. Those with
/// padding are left out.
fn for_each_product(g: &ConvGeometry, mut product: impl FnMut(usize, usize, usize)) {
    for n in 0..g.n {
        for o in 0..g.o {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let y = ((n * g.o + o) * g.oh + i) * g.ow + j;
                    for c in 0..g.c {
                        for u in 0..g.kh {
                            for v in 0..g.kw {
                                let (row, column) = (i * g.stride + u, j * g.stride + v);
                                let is_inside = (g.padding..g.padding + g.h).contains(&row)
                                    && (g.padding..g.padding + g.w).contains(&column);
                                if is_inside {
                                    let (row, column) = (row - g.padding, column - g.padding);
                                    let x = ((n * g.c + c) * g.h + row) * g.w + column;
                                    let w = ((o * g.c + c) * g.kh + u) * g.kw + v;
                                    product(x, w, y);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

// K of each element is the number of its products.

fn conv2d_in_float64(g: &ConvGeometry, x: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.o * g.oh * g.ow];
    for_each_product(g, |xi, wi, yi| sums[yi].add(x[xi] * w[wi]));
    sums.into_iter().collect()
}

fn dx_in_float64(g: &ConvGeometry, dy: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.c * g.h * g.w];
    for_each_product(g, |xi, wi, yi| sums[xi].add(dy[yi] * w[wi]));
    sums.into_iter().collect()
}

fn dw_in_float64(g: &ConvGeometry, dy: &[f64], x: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.o * g.c * g.kh * g.kw];
    for_each_product(g, |xi, wi, yi| sums[wi].add(dy[yi] * x[xi]));
    sums.into_iter().collect()
}

fn options(stride: usize, padding: usize) -> Conv2dOptions {
    Conv2dOptions { stride, padding }
}

fn geometry(x_shape: [usize; 4], w_shape: [usize; 4], options: Conv2dOptions) -> ConvGeometry {
    ConvGeometry::new(x_shape, w_shape, options).expect("a case that fits")
}

/// Whether the packed copies of one image and of the weight fit a small binding. Batches are
/// sliced, these are not.
fn fits_small_bindings(g: &ConvGeometry) -> bool {
    // Weights are padded to tiles of up to 64 output channels in both directions, images to those
    // of the weight gradient.
    let taps = g.kh * g.kw;
    let largest = [
        g.c * g.o.next_multiple_of(64) * taps,
        g.o * g.c.next_multiple_of(64) * taps,
        g.c.next_multiple_of(4) * g.h * g.w,
        g.o.next_multiple_of(8) * g.oh * g.ow,
    ];
    largest
        .iter()
        .all(|&n| 4 * n + 256 <= devices::SMALL_BINDING)
}

/// The devices of `all` on which a convolution of this geometry runs.
fn devices_for(
    g: &ConvGeometry,
    all: impl IntoIterator<Item = (&'static str, Device)>,
) -> Vec<(&'static str, Device)> {
    let runs = |name| name != devices::SLICED || fits_small_bindings(g);
    all.into_iter().filter(|(name, _)| runs(*name)).collect()
}

/// The results of the forward pass and of both gradients.
fn three_passes(
    device: &Device,
    g: &ConvGeometry,
    [x, w, dy]: [&Tensor; 3],
) -> Result<[Tensor; 3]> {
    let options = g.options();
    let (x_shape, w_shape) = (g.x_shape(), g.w_shape());
    Ok([
        device.run(Conv2d { x, w, options })?,
        device.run(Conv2dDx {
            dy,
            w,
            x_shape,
            options,
        })?,
        device.run(Conv2dDw {
            dy,
            x,
            w_shape,
            options,
        })?,
    ])
}

#[test]
fn equal_calls_give_equal_bits() {
    // The CPU takes those with 32 channels by Winograd's method, with more tiles than channels and
    // with fewer.
    for (x_shape, o) in [
        ([9, 17, 16, 15], 33),
        ([9, 32, 16, 15], 33),
        ([17, 32, 4, 4], 33),
        ([19, 16, 16, 15], 24),
        ([19, 32, 16, 15], 40),
    ] {
        let g = geometry(x_shape, [o, x_shape[1], 3, 3], options(1, 1));
        let mut rng = random(36);
        let [x, w, dy] = [g.x_shape(), g.w_shape(), g.y_shape()].map(|shape| {
            let values = normal(&mut rng, shape.iter().product());
            (values, shape)
        });
        same_bits(devices_for(&g, devices::all_variants()), |device| {
            let [x, w, dy] = [&x, &w, &dy].map(|(values, shape)| put(device, values, shape));
            let results = three_passes(device, &g, [&x, &w, &dy]);
            let [y, dx, dw] = results.expect("a convolution");
            [("conv2d", y), ("conv2d_dx", dx), ("conv2d_dw", dw)]
        });
    }
}

#[test]
fn gradients() {
    // Kernel, stride, padding, height and width.
    for (kernel, stride, padding, h, w) in [
        (1, 1, 0, 4, 3),
        (1, 2, 0, 5, 4),
        (3, 1, 1, 5, 4),
        (3, 1, 0, 4, 5),
        (3, 2, 1, 5, 6),
        (7, 2, 3, 7, 6),
    ] {
        let options = options(stride, padding);
        let leaves = [
            normal_leaf(1, &[2, 2, h, w]),
            normal_leaf(2, &[3, 2, kernel, kernel]),
        ];
        let case = format!("conv2d with kernel {kernel} and {options:?}");
        check_gradients(&case, &leaves, |x| x[0].conv2d(&x[1], options));
    }
}

#[test]
fn gradients_with_a_batch_norm() {
    for number in 0..3 {
        // Channels of 1 and -1 in turn, and shortcuts so small that no result comes near the kink.
        let mut x = signed(1, &[4, 3, 3, 2], 0.9, 1.1);
        for (i, x) in x.values.iter_mut().enumerate() {
            *x = if i % 2 == 0 { x.abs() } else { -x.abs() };
        }
        let shortcut = signed(4, &[4, 3, 3, 2], 0.1, 0.3);
        let case = format!("conv2d_batch_norm {number}");
        check_gradients(&case, &[x, shortcut], |x| {
            let device = &x[0].device();
            let channels = |values: [f32; 3]| put(device, &values, &[3]);
            let norm = ChannelNorm {
                statistics: BatchStatistics {
                    mean: channels([0.1, -0.1, 0.05]),
                    variance: channels([0.9, 1.5, 2.5]),
                },
                gamma: channels([1.5, 2.0, -1.7]),
                beta: channels([0.1, -0.2, 0.1]),
                eps: 1e-5,
            };
            // Each channel depends on itself and a little on one other.
            let w = [2.0, 0.1, 0.0, 0.0, 2.0, -0.1, 0.1, 0.0, 2.0];
            let w = put(device, &w, &[3, 3, 1, 1]);
            let activation = match number {
                0 => Activation::Identity,
                1 => Activation::Relu,
                _ => Activation::AddRelu(&x[1]),
            };
            let y = x[0].conv2d_batch_norm((&w, options(1, 0)), &norm, activation)?;
            // Every leaf takes part, with a coefficient.
            y.add(&x[1].scale(0.3)?)
        });
    }
}

#[test]
fn the_references_have_the_right_gradients() {
    let g = geometry([2, 3, 5, 6], [4, 3, 3, 3], options(2, 1));
    let (x, w) = (numbers(101, 180), numbers(102, 108));
    let dy = numbers(103, g.y_shape().iter().product());
    let dx = dx_in_float64(&g, &dy, &w).value;
    check_reference("dx", &x, &dx, |x| {
        dot(&dy, &conv2d_in_float64(&g, x, &w).value)
    });
    let dw = dw_in_float64(&g, &dy, &x).value;
    check_reference("dw", &w, &dw, |w| {
        dot(&dy, &conv2d_in_float64(&g, &x, w).value)
    });
}
