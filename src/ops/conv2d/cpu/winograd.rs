//! Convolution with 3x3 kernels of stride 1 by Winograd's minimal filtering algorithm F(4x4, 3x3)
//! (Lavin and Gray 2015). A tile of 4 x 4 outputs takes 36 multiplications instead of 144.
//!
//! V, U and M are the transforms of input tiles, kernels and output tiles. At each of 36 points:
//!
//! - forward: `M [tiles, O] = V [tiles, C] U [C, O]`
//! - dx: the same on dy, with kernels rotated by 180 degrees and C and O exchanged
//! - dw: `dU [C, O] = V^T dM`; each step is the transpose of a step of the forward pass
//!
//! If the batch has at least as many tiles as there are output channels, U is computed once and the
//! work is split into blocks of images. Otherwise V is computed once and the work is split into
//! blocks of output channels. The blocks do not depend on the number of threads.

mod convolve;
mod layout;
mod multiply;
mod transforms;
mod transpose;
mod vector;
mod weight_gradient;

pub(super) use convolve::{conv2d, conv2d_dx};
pub(super) use weight_gradient::conv2d_dw;

use crate::device::cpu::activations::Activations;
use crate::device::cpu::arena::Buffer;
use crate::device::cpu::scratch::with_scratch;
use crate::device::cpu::{Cpu, parallel};
use crate::ops::conv2d::ConvGeometry;
use layout::{Images, Matrices, Tiles, transform_inputs};
use transforms::{KERNEL, PRODUCTS};

/// Tiles that are transformed and multiplied at a time. Their V and M fit the cache of a core.
const TILES: usize = 32;
/// Input channels that are transformed and multiplied at a time if V is computed once. Their U fits
/// the cache of a core.
const CHANNELS: usize = 64;
/// Minimum number of input and of output channels. With fewer, the transforms cost more time than
/// the products save.
const MIN_CHANNELS: usize = 32;
/// Minimum number of products per output element, in the direct formula. The transforms mix all
/// pixels of a tile into each output, and their rounding error would dominate that of a shorter
/// sum.
const MIN_TERMS: usize = 128;

/// A forward convolution. An input gradient is one too, with dy as its input.
#[derive(Clone, Copy)]
struct Layer {
    n: usize,
    c: usize,
    o: usize,
    /// Height and width of the input and of the output.
    input: [usize; 2],
    output: [usize; 2],
    padding: usize,
}

impl Layer {
    fn forward(g: &ConvGeometry) -> Self {
        Layer {
            n: g.n,
            c: g.c,
            o: g.o,
            input: [g.h, g.w],
            output: [g.oh, g.ow],
            padding: g.padding,
        }
    }

    fn input_gradient(g: &ConvGeometry) -> Self {
        Layer {
            n: g.n,
            c: g.o,
            o: g.c,
            input: [g.oh, g.ow],
            output: [g.h, g.w],
            padding: KERNEL - 1 - g.padding,
        }
    }

    fn tiles(self) -> Tiles {
        Tiles::of(self.output[0], self.output[1])
    }

    fn output_len(self) -> usize {
        self.o * self.output[0] * self.output[1]
    }

    fn input_images(self, images: usize) -> Images {
        Images {
            images,
            channels: self.c,
            h: self.input[0],
            w: self.input[1],
        }
    }

    fn output_images(self, images: usize, channels: usize) -> Images {
        Images {
            images,
            channels,
            h: self.output[0],
            w: self.output[1],
        }
    }

    fn images_per_block(self) -> usize {
        (TILES / self.tiles().per_image()).clamp(1, self.n)
    }

    /// Whether the work is split into blocks of images. Otherwise it is split by output channels.
    fn splits_images(self) -> bool {
        self.o <= self.n * self.tiles().per_image()
    }

    /// Whether the algorithm is faster than the direct one and as accurate.
    fn is_suitable(self) -> bool {
        let direct = self.output[0] * self.output[1] * KERNEL * KERNEL;
        // Tiles at the edge also compute outputs outside the image. Saves a third or more.
        let is_cheaper = 3 * self.tiles().per_image() * PRODUCTS <= 2 * direct;
        // Outputs in a corner have the fewest taps inside the image.
        let terms = self.c * (KERNEL - self.padding).pow(2);
        is_cheaper && self.c.min(self.o) >= MIN_CHANNELS && terms >= MIN_TERMS
    }
}

fn is_3x3_of_stride_1(g: &ConvGeometry) -> bool {
    (g.kh, g.kw, g.stride) == (KERNEL, KERNEL, 1) && g.padding < KERNEL && g.n > 0
}

/// Whether [`conv2d`] computes the forward pass of `g`.
pub(super) fn applies(g: &ConvGeometry) -> bool {
    is_3x3_of_stride_1(g) && Layer::forward(g).is_suitable()
}

/// Whether [`conv2d_dx`] computes the input gradient of `g`.
pub(super) fn applies_to_dx(g: &ConvGeometry) -> bool {
    is_3x3_of_stride_1(g) && Layer::input_gradient(g).is_suitable()
}

/// Whether [`conv2d_dw`] computes the weight gradient of `g`.
pub(super) fn applies_to_dw(g: &ConvGeometry) -> bool {
    applies(g) && g.n * g.oh * g.ow >= MIN_TERMS
}

/// Splits `count` tiles into ranges of at most `TILES`, each given by its first tile and length.
fn ranges(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count)
        .step_by(TILES)
        .map(move |first| (first, TILES.min(count - first)))
}

/// The transformed tiles of all images, in blocks of channels.
struct Transformed {
    /// The matrices of a block. The last block may have fewer channels than columns.
    block: Matrices,
    channels: usize,
    values: Buffer,
}

impl Transformed {
    /// Computes `transform(pixels, matrices)` of the images `x` for each block.
    fn new(
        cpu: &Cpu,
        x: Activations<'_>,
        x_images: Images,
        block: Matrices,
        transform: impl Fn((Images, &[f32]), (Matrices, &mut [f32])) + Sync + Send,
    ) -> Self {
        let channels = x_images.channels;
        let mut values = cpu.allocate(channels.div_ceil(block.columns) * block.len());
        parallel::for_chunks(&mut values, block.len(), |i, values| {
            let first = i * block.columns;
            let part = Images {
                channels: block.columns.min(channels - first),
                ..x_images
            };
            with_scratch([part.len()], |[pixels]| {
                part.gather(x, channels, [0, first], pixels);
                transform((part, pixels), (block, values));
            });
        });
        Transformed {
            block,
            channels,
            values,
        }
    }

    /// The first channel, the number of channels, and the matrices of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, (Matrices, &[f32]))> {
        let blocks = self.values.chunks(self.block.len()).enumerate();
        blocks.map(|(i, values)| {
            let first = i * self.block.columns;
            let channels = self.block.columns.min(self.channels - first);
            (first, channels, (self.block, values))
        })
    }
}

/// Computes V of all images.
fn all_inputs(cpu: &Cpu, layer: Layer, x: Activations<'_>) -> Transformed {
    let tiles = layer.tiles();
    let block = Matrices::whole(layer.n * tiles.per_image(), CHANNELS);
    let images = layer.input_images(layer.n);
    Transformed::new(cpu, x, images, block, |pixels, v| {
        transform_inputs(pixels, tiles, layer.padding, 0, v);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::activations::NewActivations;
    use crate::error::Result;
    use crate::ops::conv2d::{Conv2d, Conv2dDw, Conv2dDx, Conv2dOptions};
    use crate::philox::Philox;
    use crate::tensor::Tensor;

    fn geometry(x: [usize; 4], w: [usize; 4], stride: usize, padding: usize) -> ConvGeometry {
        ConvGeometry::new(x, w, Conv2dOptions { stride, padding }).expect("it fits")
    }

    #[test]
    fn wide_3x3_convolutions_of_stride_1_use_winograd() {
        for (channels, size) in [(64, 32), (128, 16), (256, 8), (512, 4)] {
            let w = [channels, channels, 3, 3];
            let g = geometry([32, channels, size, size], w, 1, 1);
            assert!(applies(&g) && applies_to_dx(&g) && applies_to_dw(&g));
        }
        let taken = |x, w, stride, padding| applies(&geometry(x, w, stride, padding));
        assert!(taken([1, 128, 8, 8], [64, 128, 3, 3], 1, 2));
        assert!(
            !taken([1, 64, 8, 8], [64, 64, 3, 3], 1, 2),
            "64 products in a corner"
        );
        assert!(!taken([1, 64, 8, 8], [64, 64, 3, 3], 1, 3), "padding");
        let short = geometry([1, 64, 8, 8], [64, 64, 3, 3], 1, 1);
        assert!(applies(&short) && !applies_to_dw(&short), "64 pixels");
        assert!(!taken([1, 64, 8, 8], [64, 64, 3, 3], 2, 1), "stride");
        assert!(!taken([1, 64, 8, 8], [64, 64, 1, 1], 1, 0), "kernel");
        assert!(!taken([1, 3, 32, 32], [64, 3, 3, 3], 1, 1), "channels");
        assert!(
            !taken([32, 64, 2, 2], [64, 64, 3, 3], 1, 1),
            "tiles mostly empty"
        );
    }

    #[test]
    fn the_device_uses_winograd() {
        let (device, memory) = (Device::cpu(), Cpu::new());
        let g = geometry([5, 32, 7, 6], [40, 32, 3, 3], 1, 1);
        let numbers = |stream: u32, len: usize| -> Vec<f32> {
            let mut rng = Philox::new(stream.into(), [0; 3]);
            (0..len).map(|_| rng.normal()).collect()
        };
        let (x, w) = (numbers(1, 5 * 32 * 42), numbers(2, 40 * 32 * 9));
        let dy = numbers(3, 5 * 40 * 42);
        let put = |values: &[f32], shape: [usize; 4]| {
            Tensor::from_slice(values, &shape, &device).expect("it fits")
        };
        let (x_shape, w_shape, options) = (g.x_shape(), g.w_shape(), g.options());
        let (xt, wt, dyt) = (put(&x, x_shape), put(&w, w_shape), put(&dy, g.y_shape()));
        let read = |y: Result<Tensor>| y.and_then(|y| y.to_vec::<f32>()).expect("it ran");
        let (x, dy) = (Activations::F32(&x), Activations::F32(&dy));
        let made = |y: NewActivations, shape: [usize; 4]| read(Ok(memory.activations(&shape, y)));
        let (xt, wt, dyt) = (&xt, &wt, &dyt);
        assert_eq!(
            read(device.run(Conv2d {
                x: xt,
                w: wt,
                options
            })),
            made(conv2d(&memory, &g, x, &w, None), g.y_shape())
        );
        assert_eq!(
            read(device.run(Conv2dDx {
                dy: dyt,
                w: wt,
                x_shape,
                options
            })),
            made(conv2d_dx(&memory, &g, dy, &w), x_shape)
        );
        assert_eq!(
            read(device.run(Conv2dDw {
                dy: dyt,
                x: xt,
                w_shape,
                options
            })),
            conv2d_dw(&memory, &g, dy, x).to_vec()
        );
    }
}
