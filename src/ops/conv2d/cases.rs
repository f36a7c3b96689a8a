//! Convolutions against float64.

use super::weights::{PackWeights, parts, share_copies};
use super::{Conv2d, Conv2dDw, Conv2dDx, Conv2dOptions, ConvGeometry};
use crate::device::gpu::WeightPlace;
use crate::device::{Cpu, Device};
use crate::error::Result;
use crate::ops::batch_norm::{Activation, BatchStatistics, ChannelNorm};
use crate::tensor::{DType, Flat, Tensor};
use crate::testing::tester::{On, SMALL_BINDING};
use crate::testing::{
    Expected, Sum, Tester, normal, normal_leaf, normal16, rounded16, signed, wide,
};

/// Input, weight, stride and padding of one convolution.
pub type Case = ([usize; 4], [usize; 4], usize, usize);

/// Kernels, strides and paddings; single pixels; planes, channels and rows that fill tiles and
/// vectors, and that do not; slices.
const CASES: [Case; 24] = [
    ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0),
    ([1, 1, 1, 1], [1, 1, 3, 3], 2, 1),
    ([3, 5, 1, 1], [17, 5, 1, 1], 1, 0),
    ([1, 1, 7, 7], [1, 1, 7, 7], 1, 0),
    ([2, 3, 9, 8], [5, 3, 3, 3], 1, 2),
    ([2, 3, 9, 8], [5, 3, 7, 7], 2, 3),
    ([2, 3, 6, 6], [5, 3, 1, 1], 2, 0),
    ([2, 3, 6, 9], [5, 3, 1, 3], 1, 1),
    ([1, 3, 8, 8], [2, 3, 3, 3], 5, 0),
    ([1, 64, 8, 8], [64, 64, 3, 3], 1, 1),
    ([2, 17, 33, 31], [5, 17, 3, 3], 2, 1),
    ([9, 17, 13, 11], [64, 17, 1, 1], 1, 0),
    ([129, 3, 4, 4], [3, 3, 3, 3], 1, 1),
    ([3, 61, 9, 7], [59, 61, 3, 3], 1, 1),
    ([17, 16, 17, 17], [17, 16, 3, 3], 1, 1),
    ([5, 64, 8, 8], [64, 64, 1, 1], 1, 0),
    ([3, 72, 4, 4], [68, 72, 1, 1], 1, 0),
    ([2, 136, 4, 6], [20, 136, 1, 1], 1, 0),
    ([3, 64, 6, 6], [62, 64, 1, 1], 1, 0),
    ([3, 72, 3, 8], [68, 72, 3, 3], 1, 1),
    ([5, 72, 4, 4], [20, 72, 3, 3], 1, 1),
    ([2, 16, 2, 12], [136, 16, 3, 3], 1, 1),
    ([40, 8, 16, 16], [64, 8, 3, 3], 1, 1),
    ([2, 64, 8, 8], [64, 64, 3, 3], 1, 0),
];

/// Convolutions of f16: odd planes, slices, single pixels, ragged tiles, and those that the CPU
/// takes by Winograd's method, keeping kernels or inputs.
const CASES_OF_F16: [Case; 20] = [
    ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0),
    ([3, 5, 1, 1], [17, 5, 1, 1], 1, 0),
    ([2, 3, 9, 7], [5, 3, 3, 3], 1, 1),
    ([2, 3, 9, 8], [5, 3, 7, 7], 2, 3),
    ([2, 3, 6, 6], [5, 3, 1, 1], 2, 0),
    ([2, 17, 33, 31], [5, 17, 3, 3], 2, 1),
    ([9, 17, 13, 11], [64, 17, 1, 1], 1, 0),
    ([129, 3, 4, 4], [3, 3, 3, 3], 1, 1),
    ([3, 61, 9, 7], [59, 61, 3, 3], 1, 1),
    ([17, 16, 17, 17], [17, 16, 3, 3], 1, 1),
    ([1, 32, 7, 7], [33, 32, 3, 3], 1, 1),
    ([41, 35, 4, 4], [33, 35, 3, 3], 1, 1),
    ([17, 32, 4, 4], [70, 32, 3, 3], 1, 1),
    ([2, 37, 30, 29], [35, 37, 3, 3], 1, 1),
    // Planes and rows of whole vec4s, with ragged tiles: 1x1, and rows of 16, of 8 and of 4.
    ([5, 72, 6, 6], [68, 72, 1, 1], 1, 0),
    ([9, 36, 3, 16], [68, 36, 3, 3], 1, 1),
    ([5, 20, 3, 8], [36, 20, 3, 3], 1, 1),
    ([41, 20, 4, 4], [36, 20, 3, 3], 1, 1),
    ([5, 68, 8, 8], [72, 68, 1, 1], 2, 0),
    // The same for 1x1, with sums over channels that are cut in two places.
    ([2, 136, 4, 6], [136, 136, 1, 1], 1, 0),
];

/// Every case, but for the shapes of whole networks.
pub fn run(tester: &Tester) -> Result<()> {
    convolutions(tester, 30, &CASES)?;
    convolutions_of_f16(tester, 83, &CASES_OF_F16)?;
    repeats_on_matrices(tester)?;
    copies_of_weights(tester)?;
    copies_follow_their_weight(tester)?;
    gradients(tester)?;
    gradients_with_a_batch_norm(tester)
}

/// Number of equal calls of a variant on matrices; see the cases of products.
const REPEATS: usize = 100;

/// Equal convolutions of f16 on matrices have equal bits.
fn repeats_on_matrices(tester: &Tester) -> Result<()> {
    let options = options(1, 1);
    let g = geometry([3, 20, 12, 12], [36, 20, 3, 3], options);
    let (x_shape, w_shape) = (g.x_shape(), g.w_shape());
    let mut rng = tester.random(84);
    let x = normal16(&mut rng, x_shape.iter().product());
    let dy = normal16(&mut rng, g.y_shape().iter().product());
    let w = normal(&mut rng, w_shape.iter().product());
    for on in tester.all_variants().filter(On::is_on_matrices) {
        let (x, w) = (&on.put16(&x, &x_shape)?, &on.put(&w, &w_shape)?);
        let dy = &on.put16(&dy, &g.y_shape())?;
        let equal = |passes: &dyn Fn() -> Result<Tensor>| -> Result<()> {
            let bits = || -> Result<Vec<u32>> {
                let bytes = passes()?.read()?.wait()?;
                Ok(bytes.into_iter().map(u32::from).collect())
            };
            let first = bits()?;
            for number in 1..REPEATS {
                on.equal(&format!("{x_shape:?}, call {number}"), &bits()?, &first);
            }
            Ok(())
        };
        equal(&|| on.run(Conv2d { x, w, options }))?;
        equal(&|| {
            on.run(Conv2dDx {
                dy,
                w,
                x_shape,
                options,
            })
        })?;
        equal(&|| {
            on.run(Conv2dDw {
                dy,
                x,
                w_shape,
                options,
            })
        })?;
    }
    Ok(())
}

/// Weights of several parts, and gaps between them, in f32 and in f16.
fn copies_of_weights(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(31);
    let place = |from, to, pairs, taps| WeightPlace {
        from,
        to,
        pairs,
        taps,
    };
    let places = [
        place(64, 128, 8, 9),
        place(192, 0, 68, 1),
        place(320, 256, 1028, 9),
        place(9600, 9600, 2048, 1),
    ];
    let source = normal(&mut rng, 11_700);
    let mut expected = vec![0.0; 11_700];
    for place in places {
        for pair in 0..place.pairs {
            for tap in 0..place.taps {
                let value = source[place.from + pair * place.taps + tap];
                expected[place.to + tap * place.pairs + pair] = value;
            }
        }
    }
    let len = &[source.len()];
    for on in tester.all() {
        let (device_source, parts) = (&on.put(&source, len)?, parts(&places));
        let parts = &on.put(&parts, &[parts.len()])?;
        let copy = |packed: &Tensor| {
            on.run(PackWeights {
                source: device_source,
                packed,
                places: &places,
                parts,
            })
        };
        let packed = Tensor::zeros(len, DType::F32, &on)?;
        copy(&packed)?;
        on.agree("f32", &packed, len, &Expected::exact(wide(&expected)))?;
        if on.has_f16() {
            let packed = Tensor::zeros(len, DType::F16, &on)?;
            copy(&packed)?;
            let rounded = Expected::exact(wide(&rounded16(&expected)));
            on.agree16("f16", &packed, len, &rounded)?;
        }
    }
    Ok(())
}

/// On a GPU, the tiled variants read copies of weights that are next to each other.
fn copies_follow_their_weight(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(32);
    for (x_shape, w_shape, stride, padding) in [
        ([5, 20, 4, 4], [12, 20, 3, 3], 1, 1),
        ([2, 20, 6, 6], [12, 20, 1, 1], 2, 0),
    ] {
        let options = options(stride, padding);
        let g = geometry(x_shape, w_shape, options);
        let y_shape = g.y_shape();
        let of = |rng: &mut _, shape: [usize; 4]| normal16(rng, shape.iter().product());
        let (x, dy) = (of(&mut rng, x_shape), of(&mut rng, y_shape));
        let weights = [(); 2].map(|()| of(&mut rng, w_shape));
        for on in tester.all_variants().filter(|on| runs(on, &g)) {
            let other = on.put(&[1.0f32; 70], &[70])?;
            let w = on.put(&weights[0], &w_shape)?;
            let parameters = [&other, &w];
            if let Some(flat) = Flat::of(&parameters)? {
                share_copies(&parameters, &flat);
            }
            for (number, values) in weights.iter().enumerate() {
                w.overwrite(values)?;
                let y_expected = conv2d_in_float64(&g, &wide(&x), &wide(values));
                let dx_expected = dx_in_float64(&g, &wide(&dy), &wide(values));
                for is_half in [false, true] {
                    let case =
                        format!("{x_shape:?} * {w_shape:?}, weight {number}, f16: {is_half}");
                    if is_half && !on.has_f16() {
                        continue;
                    }
                    let put = |x: &[f32], shape: &[usize]| {
                        if is_half {
                            on.put16(x, shape)
                        } else {
                            on.put(x, shape)
                        }
                    };
                    let (x, dy, w) = (&put(&x, &x_shape)?, &put(&dy, &y_shape)?, &w);
                    let y = on.run(Conv2d { x, w, options })?;
                    let forward = (&y, &y_shape, &y_expected);
                    let dx = on.run(Conv2dDx {
                        dy,
                        w,
                        x_shape,
                        options,
                    })?;
                    for (found, shape, expected) in [forward, (&dx, &x_shape, &dx_expected)] {
                        if is_half {
                            on.agree16(&case, found, shape, expected)?
                        } else {
                            on.agree(&case, found, shape, expected)?
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

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

pub(super) fn conv2d_in_float64(g: &ConvGeometry, x: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.o * g.oh * g.ow];
    for_each_product(g, |xi, wi, yi| sums[yi].add(x[xi] * w[wi]));
    sums.into_iter().collect()
}

pub(super) fn dx_in_float64(g: &ConvGeometry, dy: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.c * g.h * g.w];
    for_each_product(g, |xi, wi, yi| sums[xi].add(dy[yi] * w[wi]));
    sums.into_iter().collect()
}

pub(super) fn dw_in_float64(g: &ConvGeometry, dy: &[f64], x: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.o * g.c * g.kh * g.kw];
    for_each_product(g, |xi, wi, yi| sums[wi].add(dy[yi] * x[xi]));
    sums.into_iter().collect()
}

pub(super) fn options(stride: usize, padding: usize) -> Conv2dOptions {
    Conv2dOptions { stride, padding }
}

pub(super) fn geometry(
    x_shape: [usize; 4],
    w_shape: [usize; 4],
    options: Conv2dOptions,
) -> ConvGeometry {
    ConvGeometry::new(x_shape, w_shape, options).expect("a case that fits")
}

/// Whether the packed copies of one image and of the weight fit a small binding. Batches are
/// sliced, these are not.
pub(super) fn fits_small_bindings(g: &ConvGeometry) -> bool {
    // Weights are padded to tiles of up to 64 output channels in both directions, images to those
    // of the weight gradient.
    let taps = g.kh * g.kw;
    let largest = [
        g.c * g.o.next_multiple_of(64) * taps,
        g.o * g.c.next_multiple_of(64) * taps,
        g.c.next_multiple_of(4) * g.h * g.w,
        g.o.next_multiple_of(8) * g.oh * g.ow,
    ];
    largest.iter().all(|&n| 4 * n + 256 <= SMALL_BINDING)
}

/// Whether a convolution of this geometry runs on a device.
fn runs(on: &On<'_>, g: &ConvGeometry) -> bool {
    !on.is_sliced() || fits_small_bindings(g)
}

/// The forward pass and both gradients of f32 convolutions, against float64.
pub fn convolutions(tester: &Tester, stream: u32, cases: &[Case]) -> Result<()> {
    compare(tester, stream, cases, |g, x, w, dy| {
        let (x, w, dy) = (&wide(x), &wide(w), &wide(dy));
        Ok([
            conv2d_in_float64(g, x, w),
            dx_in_float64(g, dy, w),
            dw_in_float64(g, dy, x),
        ])
    })
}

/// As [`convolutions`], against the CPU's matrix products, which are much faster than the loops in
/// float64. The bound is that of two sums.
pub fn large_convolutions(tester: &Tester, stream: u32, cases: &[Case]) -> Result<()> {
    let cpu: Device = Cpu::without_winograd().into();
    compare(tester, stream, cases, |g, x, w, dy| {
        let options = g.options();
        let (x_shape, w_shape) = (g.x_shape(), g.w_shape());
        let results = |change: fn(f32) -> f32| -> Result<[Vec<f32>; 3]> {
            let put = |values: &[f32], shape: &[usize]| {
                let values: Vec<f32> = values.iter().map(|v| change(*v)).collect();
                Tensor::from_slice(&values, shape, &cpu)
            };
            let (x, w) = (&put(x, &x_shape)?, &put(w, &w_shape)?);
            let dy = &put(dy, &g.y_shape())?;
            let dx = Conv2dDx {
                dy,
                w,
                x_shape,
                options,
            };
            let dw = Conv2dDw {
                dy,
                x,
                w_shape,
                options,
            };
            Ok([
                cpu.run(Conv2d { x, w, options })?.to_vec()?,
                cpu.run(dx)?.to_vec()?,
                cpu.run(dw)?.to_vec()?,
            ])
        };
        let (values, magnitudes) = (results(|v| v)?, results(f32::abs)?);
        let taps = g.kh * g.kw;
        let terms = [g.c * taps, g.o * taps, g.n * g.oh * g.ow];
        Ok([0, 1, 2].map(|i| {
            let sums = values[i].iter().zip(&magnitudes[i]);
            let mut expected = Expected::default();
            for (value, magnitude) in sums {
                let sum = Sum {
                    value: f64::from(*value),
                    magnitude: f64::from(*magnitude),
                    terms: terms[i],
                };
                expected.push(sum.value, 2.0 * sum.bound());
            }
            expected
        }))
    })
}

/// Compares results with those of `expected`, which takes the geometry, x, w and dy, and returns y,
/// dx and dw.
fn compare(
    tester: &Tester,
    stream: u32,
    cases: &[Case],
    expected: impl Fn(&ConvGeometry, &[f32], &[f32], &[f32]) -> Result<[Expected; 3]>,
) -> Result<()> {
    let mut rng = tester.random(stream);
    for &(x_shape, w_shape, stride, padding) in cases {
        let options = options(stride, padding);
        let g = geometry(x_shape, w_shape, options);
        let y_shape = g.y_shape();
        let x = normal(&mut rng, x_shape.iter().product());
        let w = normal(&mut rng, w_shape.iter().product());
        let dy = normal(&mut rng, y_shape.iter().product());
        if tester.is_late() {
            continue;
        }
        let exact = expected(&g, &x, &w, &dy)?;
        let mut rounded = None;
        let case = format!("{x_shape:?} * {w_shape:?} {options:?}");
        for on in tester.all_variants().filter(|on| runs(on, &g)) {
            if on.rounds_factors() && rounded.is_none() {
                let [x, w, dy] = [&x, &w, &dy].map(|values| rounded16(values));
                rounded = Some(expected(&g, &x, &w, &dy)?);
            }
            let [y_expected, dx_expected, dw_expected] = match &rounded {
                Some(rounded) if on.rounds_factors() => rounded,
                _ => &exact,
            };
            let (x, w) = (&on.put(&x, &x_shape)?, &on.put(&w, &w_shape)?);
            let dy = &on.put(&dy, &y_shape)?;
            let y = on.run(Conv2d { x, w, options })?;
            on.agree(&case, &y, &y_shape, y_expected)?;
            let dx = on.run(Conv2dDx {
                dy,
                w,
                x_shape,
                options,
            })?;
            on.agree(&case, &dx, &x_shape, dx_expected)?;
            let dw = on.run(Conv2dDw {
                dy,
                x,
                w_shape,
                options,
            })?;
            on.agree(&case, &dw, &w_shape, dw_expected)?;
        }
    }
    Ok(())
}

/// As [`convolutions`], with f16 activations.
pub fn convolutions_of_f16(tester: &Tester, stream: u32, cases: &[Case]) -> Result<()> {
    let mut rng = tester.random(stream);
    for &(x_shape, w_shape, stride, padding) in cases {
        let options = options(stride, padding);
        let g = geometry(x_shape, w_shape, options);
        let y_shape = g.y_shape();
        let x = normal16(&mut rng, x_shape.iter().product());
        let dy = normal16(&mut rng, y_shape.iter().product());
        // The weight is f32, and rounded by the kernel.
        let w = normal(&mut rng, w_shape.iter().product());
        let w16 = wide(&rounded16(&w));
        let y_expected = conv2d_in_float64(&g, &wide(&x), &w16);
        let dx_expected = dx_in_float64(&g, &wide(&dy), &w16);
        let dw_expected = dw_in_float64(&g, &wide(&dy), &wide(&x));
        let case = format!("f16 {x_shape:?} * {w_shape:?} {options:?}");
        let on_devices = tester.all_variants().filter(On::has_f16);
        for on in on_devices.filter(|on| runs(on, &g)) {
            let (x, w) = (&on.put16(&x, &x_shape)?, &on.put(&w, &w_shape)?);
            let dy = &on.put16(&dy, &y_shape)?;
            let y = on.run(Conv2d { x, w, options })?;
            on.agree16(&case, &y, &y_shape, &y_expected)?;
            let dx = on.run(Conv2dDx {
                dy,
                w,
                x_shape,
                options,
            })?;
            on.agree16(&case, &dx, &x_shape, &dx_expected)?;
            let dw = on.run(Conv2dDw {
                dy,
                x,
                w_shape,
                options,
            })?;
            on.agree(&case, &dw, &w_shape, &dw_expected)?;
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
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
        tester.gradients(&case, &leaves, |x| x[0].conv2d(&x[1], options))?;
    }
    Ok(())
}

fn gradients_with_a_batch_norm(tester: &Tester) -> Result<()> {
    for number in 0..3 {
        // Channels of 1 and -1 in turn, and shortcuts so small that no result comes near the kink.
        let mut x = signed(1, &[4, 3, 3, 2], 0.9, 1.1);
        for (i, x) in x.values.iter_mut().enumerate() {
            *x = if i % 2 == 0 { x.abs() } else { -x.abs() };
        }
        let shortcut = signed(4, &[4, 3, 3, 2], 0.1, 0.3);
        let case = format!("conv2d_batch_norm {number}");
        tester.gradients(&case, &[x, shortcut], |x| {
            let device = &x[0].device();
            let channels = |values: [f32; 3]| Tensor::from_slice(&values, &[3], device);
            let norm = ChannelNorm {
                statistics: BatchStatistics {
                    mean: channels([0.1, -0.1, 0.05])?,
                    variance: channels([0.9, 1.5, 2.5])?,
                },
                gamma: channels([1.5, 2.0, -1.7])?,
                beta: channels([0.1, -0.2, 0.1])?,
                eps: 1e-5,
            };
            // Each channel depends on itself and a little on one other.
            let w = [2.0, 0.1, 0.0, 0.0, 2.0, -0.1, 0.1, 0.0, 2.0];
            let w = Tensor::from_slice(&w, &[3, 3, 1, 1], device)?;
            let activation = match number {
                0 => Activation::Identity,
                1 => Activation::Relu,
                _ => Activation::AddRelu(&x[1]),
            };
            let y = x[0].conv2d_batch_norm((&w, options(1, 0)), &norm, activation)?;
            // Every leaf takes part, with a coefficient.
            y.add(&x[1].scale(0.3)?)
        })?;
    }
    Ok(())
}
