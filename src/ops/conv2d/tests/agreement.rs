//! Agreement of all devices with float64, and of a fused batch norm with one of its own.

use super::devices_for;
use crate::device::Device;
use crate::ops::batch_norm::{Activation, BatchNorm, BatchStatistics, ChannelNorm};
use crate::ops::conv2d::cases::{Case, convolutions, geometry, options};
use crate::ops::{Conv2d, Conv2dBatchNorm};
use crate::tensor::{DType, Tensor};
use crate::testing::{bits, check_cases, devices, get, get16, normal, put, put16, random, size};

fn convolutions_agree(stream: u32, cases: &[Case]) {
    check_cases(|tester| convolutions(tester, stream, cases));
}

#[test]
fn every_kernel_stride_and_padding() {
    let mut cases: Vec<Case> = Vec::new();
    for kernel in [1, 3, 7] {
        for stride in [1, 2] {
            for padding in 0..=3 {
                cases.push(([2, 3, 9, 8], [5, 3, kernel, kernel], stride, padding));
            }
        }
    }
    convolutions_agree(30, &cases);
}

#[test]
fn single_pixels_and_single_channels() {
    convolutions_agree(
        31,
        &[
            ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0),
            ([1, 1, 1, 1], [1, 1, 3, 3], 1, 1),
            ([1, 1, 1, 1], [1, 1, 3, 3], 2, 1),
            ([3, 5, 1, 1], [17, 5, 1, 1], 1, 0),
            ([1, 1, 7, 7], [1, 1, 7, 7], 1, 0),
            ([1, 1, 5, 1], [1, 1, 3, 3], 1, 1),
            // Rows and columns that no window touches: their gradient is zero.
            ([2, 3, 6, 6], [5, 3, 1, 1], 2, 0),
            ([1, 3, 8, 8], [2, 3, 3, 3], 5, 0),
        ],
    );
}

#[test]
fn kernels_that_are_not_square() {
    convolutions_agree(
        32,
        &[
            ([2, 3, 6, 9], [5, 3, 1, 3], 1, 1),
            ([2, 3, 9, 6], [5, 3, 3, 1], 2, 0),
        ],
    );
}

#[test]
fn across_tile_borders() {
    convolutions_agree(
        33,
        &[
            ([1, 64, 8, 8], [64, 64, 3, 3], 1, 1),
            ([2, 17, 33, 31], [5, 17, 3, 3], 2, 1),
            ([1, 3, 65, 63], [17, 3, 7, 7], 2, 3),
            ([3, 5, 16, 16], [65, 5, 1, 1], 2, 0),
            ([9, 17, 13, 11], [64, 17, 1, 1], 1, 0),
            ([8, 64, 4, 4], [17, 64, 3, 3], 1, 1),
            ([1, 1, 64, 65], [1, 1, 3, 3], 1, 1),
            ([129, 3, 4, 4], [3, 3, 3, 3], 1, 1),
            // The ragged edges of the largest tiles, and odd numbers of terms.
            ([3, 61, 9, 7], [59, 61, 3, 3], 1, 1),
            ([3, 61, 9, 7], [59, 61, 3, 3], 2, 1),
            // Larger than a small binding.
            ([17, 16, 17, 17], [17, 16, 3, 3], 1, 1),
        ],
    );
}

/// 1x1 kernels of stride 1, with planes and channels that are whole vec4s and that are not.
#[test]
fn kernels_of_1x1() {
    convolutions_agree(
        38,
        &[
            // Whole vec4s; ragged edges of the tile on every side.
            ([5, 64, 8, 8], [64, 64, 1, 1], 1, 0),
            ([3, 72, 4, 4], [68, 72, 1, 1], 1, 0),
            ([7, 4, 4, 2], [136, 4, 1, 1], 1, 0),
            ([2, 136, 4, 6], [20, 136, 1, 1], 1, 0),
            // Sums over pixels that are cut into runs, inside an image and between two.
            ([9, 8, 12, 12], [12, 8, 1, 1], 1, 0),
            ([33, 16, 8, 4], [8, 16, 1, 1], 1, 0),
            // Planes, or channels, that are no whole vec4s.
            ([3, 64, 6, 6], [64, 64, 1, 1], 1, 0),
            ([3, 64, 5, 5], [64, 64, 1, 1], 1, 0),
            ([3, 62, 4, 4], [64, 62, 1, 1], 1, 0),
            ([3, 64, 4, 4], [62, 64, 1, 1], 1, 0),
            ([2, 68, 4, 4], [64, 68, 1, 1], 1, 0),
            // More than a small binding.
            ([17, 16, 16, 16], [24, 16, 1, 1], 1, 0),
            // Padding.
            ([2, 8, 8, 8], [8, 8, 1, 1], 1, 1),
        ],
    );
}

/// 3x3 kernels of stride 1, with rows and channels that are whole vec4s and that are not.
#[test]
fn kernels_of_3x3() {
    convolutions_agree(
        39,
        &[
            // Rows of whole eights; ragged edges of the tile on every side.
            ([3, 72, 3, 8], [68, 72, 3, 3], 1, 1),
            ([2, 64, 16, 16], [64, 64, 3, 3], 1, 1),
            ([3, 8, 1, 24], [4, 8, 3, 3], 1, 1),
            // Several parts per row, and a sum over pixels that is cut in several places.
            ([3, 5, 9, 32], [7, 5, 3, 3], 1, 1),
            // Rows of fours.
            ([5, 72, 4, 4], [20, 72, 3, 3], 1, 1),
            ([2, 16, 2, 12], [136, 16, 3, 3], 1, 1),
            // Planes, channels or rows that are no whole eights or no whole fours.
            ([2, 64, 3, 4], [64, 64, 3, 3], 1, 1),
            ([2, 62, 8, 8], [64, 62, 3, 3], 1, 1),
            ([2, 64, 8, 8], [62, 64, 3, 3], 1, 1),
            ([2, 68, 8, 8], [64, 68, 3, 3], 1, 1),
            ([2, 64, 8, 6], [64, 64, 3, 3], 1, 1),
            // Larger batches, forward and back.
            ([40, 64, 16, 16], [8, 64, 3, 3], 1, 1),
            ([40, 8, 16, 16], [64, 8, 3, 3], 1, 1),
            // Not the padding that keeps the size.
            ([2, 64, 8, 8], [64, 64, 3, 3], 1, 0),
            ([2, 64, 8, 8], [64, 64, 3, 3], 1, 2),
        ],
    );
}

/// Shapes that the CPU computes by Winograd's method: 3x3, stride 1, at least 32 channels.
#[test]
fn wide_3x3_kernels_of_stride_1() {
    convolutions_agree(
        37,
        &[
            // One image: fewer tiles than channels.
            ([1, 32, 7, 7], [33, 32, 3, 3], 1, 1),
            ([1, 32, 4, 4], [32, 32, 3, 3], 1, 1),
            // Several images in a block, the last block ragged; more tiles than channels.
            ([41, 35, 4, 4], [33, 35, 3, 3], 1, 1),
            ([3, 35, 5, 3], [34, 35, 3, 3], 1, 1),
            // Several blocks of an image, sizes that are no multiple of a tile.
            ([2, 37, 30, 29], [35, 37, 3, 3], 1, 1),
            ([2, 33, 10, 9], [34, 33, 3, 3], 1, 0),
            ([2, 33, 6, 7], [40, 33, 3, 3], 1, 2),
            // The same with channels enough for sums in the corners, forward and back.
            ([1, 129, 6, 7], [33, 129, 3, 3], 1, 2),
            ([2, 33, 9, 8], [129, 33, 3, 3], 1, 0),
            // The shortest sum of a weight gradient.
            ([8, 33, 4, 4], [33, 33, 3, 3], 1, 1),
            // Several blocks of channels, on either side; a weight gradient with few tiles.
            ([17, 32, 4, 4], [70, 32, 3, 3], 1, 1),
            ([9, 32, 8, 8], [70, 32, 3, 3], 1, 1),
            ([9, 70, 8, 8], [32, 70, 3, 3], 1, 1),
            // The same with fewer tiles than channels: blocks of channels on both sides, the last
            // one shorter.
            ([9, 70, 4, 4], [129, 70, 3, 3], 1, 1),
        ],
    );
}

#[test]
fn random_shapes() {
    let mut rng = random(34);
    let channels = [1, 3, 5, 17, 64];
    let cases: Vec<Case> = (0..12)
        .map(|_| {
            let kernel = [1usize, 3, 7][rng.below(3) as usize];
            let c = channels[rng.below(5) as usize];
            let o = channels[rng.below(5) as usize];
            let padding = size(&mut rng, 0, 3);
            let smallest = kernel.saturating_sub(2 * padding).max(1) as u32;
            let [h, w] = std::array::from_fn(|_| size(&mut rng, smallest, smallest + 12));
            let n = size(&mut rng, 1, 4);
            (
                [n, c, h, w],
                [o, c, kernel, kernel],
                size(&mut rng, 1, 2),
                padding,
            )
        })
        .collect();
    convolutions_agree(35, &cases);
}

type PutActivations = fn(&Device, &[f32], &[usize]) -> Tensor;
type BitsOf = fn(&Tensor) -> Vec<u32>;

/// A convolution with a batch norm has the bits of the two operations one after the other, in the
/// element type `dtype`.
fn fused_batch_norms_agree(stream: u32, dtype: DType, cases: &[Case]) {
    let mut rng = random(stream);
    for &(x_shape, w_shape, stride, padding) in cases {
        let options = options(stride, padding);
        let g = geometry(x_shape, w_shape, options);
        let y_shape = g.y_shape();
        let x = normal(&mut rng, x_shape.iter().product());
        let w = normal(&mut rng, w_shape.iter().product());
        let shortcut = normal(&mut rng, y_shape.iter().product());
        let [mean, gamma, beta] = std::array::from_fn(|_| normal(&mut rng, g.o));
        let variance: Vec<f32> = (0..g.o).map(|_| rng.uniform(0.1, 3.0)).collect();
        let (put_activations, bits_of): (PutActivations, BitsOf) = match dtype {
            DType::F16 => (put16, |x| bits(&get16(x))),
            _ => (put, |x| bits(&get(x))),
        };
        for (name, device) in devices::with_f16(devices_for(&g, devices::all())) {
            let channels = |values: &[f32]| put(&device, values, &[g.o]);
            let norm = &ChannelNorm {
                statistics: BatchStatistics {
                    mean: channels(&mean),
                    variance: channels(&variance),
                },
                gamma: channels(&gamma),
                beta: channels(&beta),
                eps: 1e-5,
            };
            let x = &put_activations(&device, &x, &x_shape);
            let w = &put(&device, &w, &w_shape);
            let shortcut = &put_activations(&device, &shortcut, &y_shape);
            let conv = Conv2d { x, w, options };
            let between = &device.run(conv).expect(name);
            for activation in [
                Activation::Identity,
                Activation::Relu,
                Activation::AddRelu(shortcut),
            ] {
                let two = device.run(BatchNorm {
                    x: between,
                    norm,
                    activation,
                });
                let one = device.run(Conv2dBatchNorm {
                    conv,
                    norm,
                    activation,
                });
                let (one, two) = (one.expect(name), two.expect(name));
                assert_eq!(one.shape(), y_shape);
                assert_eq!(one.dtype(), dtype);
                let case = format!("{activation:?} {y_shape:?} on {name}");
                assert!(bits_of(&one) == bits_of(&two), "{case}: the bits differ");
            }
        }
    }
}

/// Also those that the CPU takes by Winograd's method, keeping kernels or inputs, and blocks of
/// several images.
#[test]
fn a_fused_batch_norm_agrees_to_the_bit() {
    let cases = [
        ([3, 5, 7, 6], [9, 5, 3, 3], 2, 1),
        ([2, 4, 33, 33], [7, 4, 1, 1], 1, 0),
        ([9, 6, 4, 4], [5, 6, 1, 1], 1, 0),
        ([9, 32, 16, 15], [33, 32, 3, 3], 1, 1),
        ([3, 32, 4, 4], [40, 32, 3, 3], 1, 1),
    ];
    fused_batch_norms_agree(44, DType::F32, &cases);
}

#[test]
fn a_fused_batch_norm_of_f16_agrees_to_the_bit() {
    let cases = [
        ([3, 5, 7, 6], [9, 5, 3, 3], 2, 1),
        ([9, 32, 16, 15], [33, 32, 3, 3], 1, 1),
    ];
    fused_batch_norms_agree(85, DType::F16, &cases);
}
