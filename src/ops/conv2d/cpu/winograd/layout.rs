//! The layouts of images and of transformed tiles, and the transforms between them.
//!
//! Images have their channels innermost, so that a vector register holds the same pixel in several
//! channels. Transformed tiles and kernels are 36 matrices, one per point.

use super::transforms::{
    KERNEL, OUTPUTS, POINTS, PRODUCTS, input, kernel, kernel_gradient, output, output_gradient,
    square,
};
use super::transpose::transpose;
use super::vector::{SIDE, Vector, Vectorized, run};
use crate::device::cpu::activations::Activations;

/// Floats of the widest register. Channels are padded to a multiple of it.
pub(super) const LANES: usize = 16;
/// Columns of a panel of a right operand or of a result.
pub(super) const PANEL: usize = 32;

/// 36 matrices of `rows` x `columns` in panels of columns:
/// `[panel, point, row, column of the panel]`.
#[derive(Clone, Copy)]
pub(super) struct Matrices {
    pub(super) rows: usize,
    /// A multiple of `panel`. Columns beyond the channels have undefined content.
    pub(super) columns: usize,
    pub(super) panel: usize,
}

impl Matrices {
    /// One panel, which has all columns.
    pub(super) fn whole(rows: usize, channels: usize) -> Self {
        let columns = channels.next_multiple_of(LANES);
        Matrices {
            rows,
            columns,
            panel: columns,
        }
    }

    /// Panels of [`PANEL`] columns.
    pub(super) fn panels(rows: usize, channels: usize) -> Self {
        Matrices {
            rows,
            columns: channels.next_multiple_of(PANEL),
            panel: PANEL,
        }
    }

    /// Stride between points. It has one cache line of padding: 36 addresses whose distance is a
    /// power of two would map to the same few sets of the cache.
    fn point_stride(self) -> usize {
        self.rows * self.panel + 16
    }

    pub(super) fn len(self) -> usize {
        self.columns / self.panel * PRODUCTS * self.point_stride()
    }

    /// The index of an element.
    #[inline(always)]
    pub(super) fn index(self, point: usize, row: usize, column: usize) -> usize {
        let panel = column / self.panel;
        (panel * PRODUCTS + point) * self.point_stride() + row * self.panel + column % self.panel
    }

    #[inline(always)]
    fn write<V: Vector>(self, row: usize, column: usize, x: [[V; POINTS]; POINTS], to: &mut [f32]) {
        let first = self.index(0, row, column);
        for (point, x) in x.as_flattened().iter().enumerate() {
            x.to_slice(&mut to[first + point * self.point_stride()..]);
        }
    }

    #[inline(always)]
    fn read<V: Vector>(self, row: usize, column: usize, from: &[f32]) -> [[V; POINTS]; POINTS] {
        let first = self.index(0, row, column);
        let mut x = [[V::splat(0.0); POINTS]; POINTS];
        for (point, x) in x.as_flattened_mut().iter_mut().enumerate() {
            *x = V::from_slice(&from[first + point * self.point_stride()..]);
        }
        x
    }
}

/// Images `[images, h, w, channels]`, with the channels padded to [`LANES`]. They are followed by
/// one pixel of zeros, which is read for pixels in the padding of the convolution.
#[derive(Clone, Copy)]
pub(super) struct Images {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl Images {
    fn width(self) -> usize {
        self.channels.next_multiple_of(LANES)
    }

    pub(super) fn len(self) -> usize {
        (self.images * self.h * self.w + 1) * self.width()
    }

    /// Copies images from `first_image` on, and their channels from `first_channel` on, out of
    /// `x [_, channels_of_x, h, w]`.
    pub(super) fn gather(
        self,
        x: Activations<'_>,
        channels_of_x: usize,
        [first_image, first_channel]: [usize; 2],
        to: &mut [f32],
    ) {
        let (pixels, width) = (self.h * self.w, self.width());
        let targets = to.chunks_exact_mut(pixels * width).take(self.images);
        for (image, to) in targets.enumerate() {
            let start = ((first_image + image) * channels_of_x + first_channel) * pixels;
            x.with(start..start + self.channels * pixels, |planes| {
                transpose((planes, pixels), [self.channels, pixels], (to, width));
            });
        }
        to[self.images * pixels * width..][..width].fill(0.0);
    }

    /// Copies image `image` to `planes [channels, h, w]`.
    pub(super) fn scatter(self, image: usize, from: &[f32], planes: &mut [f32]) {
        let (pixels, width) = (self.h * self.w, self.width());
        let from = &from[image * pixels * width..][..pixels * width];
        transpose((from, width), [pixels, self.channels], (planes, pixels));
    }

    /// The index of the first channel of a pixel, or of the pixel of zeros if it is outside.
    #[inline(always)]
    fn pixel(self, image: usize, row: isize, column: isize) -> usize {
        let inside = row >= 0 && row < self.h as isize && column >= 0 && column < self.w as isize;
        let pixel = if inside {
            (image * self.h + row as usize) * self.w + column as usize
        } else {
            self.images * self.h * self.w
        };
        pixel * self.width()
    }

    /// The indices of the pixels of a square whose first pixel is (row, column).
    #[inline(always)]
    fn pixels<const S: usize>(self, image: usize, row: isize, column: isize) -> [[usize; S]; S] {
        let mut pixels = [[0; S]; S];
        for (i, line) in pixels.iter_mut().enumerate() {
            for (j, pixel) in line.iter_mut().enumerate() {
                *pixel = self.pixel(image, row + i as isize, column + j as isize);
            }
        }
        pixels
    }
}

/// Loads a register of channels, from `column` on, of each pixel.
#[inline(always)]
fn load_square<V: Vector, const S: usize>(
    from: &[f32],
    pixels: &[[usize; S]; S],
    column: usize,
) -> [[V; S]; S] {
    let mut d = [[V::splat(0.0); S]; S];
    for (line, pixels) in d.iter_mut().zip(pixels) {
        for (d, pixel) in line.iter_mut().zip(pixels) {
            *d = V::from_slice(&from[pixel + column..]);
        }
    }
    d
}

/// The tiles of 4 x 4 outputs that cover each image, in row-major order.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    down: usize,
    across: usize,
}

impl Tiles {
    pub(super) fn of(h: usize, w: usize) -> Self {
        Tiles {
            down: h.div_ceil(OUTPUTS),
            across: w.div_ceil(OUTPUTS),
        }
    }

    pub(super) fn per_image(self) -> usize {
        self.down * self.across
    }

    /// Image, row and column of the first output of a tile.
    #[inline(always)]
    fn origin(self, tile: usize) -> (usize, isize, isize) {
        let (image, tile) = (tile / self.per_image(), tile % self.per_image());
        let (row, column) = (tile / self.across * OUTPUTS, tile % self.across * OUTPUTS);
        (image, row as isize, column as isize)
    }
}

/// Writes `B^T d B` of the tiles from `first` on to the rows of the matrices `to`.
pub(super) fn transform_inputs(
    images: (Images, &[f32]),
    tiles: Tiles,
    padding: usize,
    first: usize,
    to: (Matrices, &mut [f32]),
) {
    run(ImageTransform::<POINTS> {
        images,
        tiles,
        padding: padding as isize,
        first,
        to,
    });
}

/// Writes `A dy A^T` of the tiles from `first` on to the rows of the matrices `to`.
pub(super) fn transform_output_gradients(
    images: (Images, &[f32]),
    tiles: Tiles,
    first: usize,
    to: (Matrices, &mut [f32]),
) {
    run(ImageTransform::<OUTPUTS> {
        images,
        tiles,
        padding: 0,
        first,
        to,
    });
}

/// The transform of inputs, if `SIDE` is [`POINTS`], or of output gradients, if it is [`OUTPUTS`].
struct ImageTransform<'a, const SIDE: usize> {
    images: (Images, &'a [f32]),
    tiles: Tiles,
    padding: isize,
    first: usize,
    to: (Matrices, &'a mut [f32]),
}

impl<const SIDE: usize> ImageTransform<'_, SIDE> {
    /// `f` is passed by value, because the compiler does not inline calls through a reference to
    /// it. That would make a training step 1.6 times as slow.
    #[inline(always)]
    fn transform<V: Vector>(self, f: impl Fn([V; SIDE]) -> [V; POINTS] + Copy) {
        let ((images, from), (matrices, to)) = (self.images, self.to);
        for row in 0..matrices.rows {
            let (image, i, j) = self.tiles.origin(self.first + row);
            let pixels = images.pixels(image, i - self.padding, j - self.padding);
            for column in (0..images.width()).step_by(V::LANES) {
                let d = load_square::<V, SIDE>(from, &pixels, column);
                matrices.write(row, column, square(&d, f), to);
            }
        }
    }
}

impl Vectorized for ImageTransform<'_, POINTS> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        self.transform(
            #[inline(always)]
            |d: [V; POINTS]| input(d),
        );
    }
}

impl Vectorized for ImageTransform<'_, OUTPUTS> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        self.transform(
            #[inline(always)]
            |dy: [V; OUTPUTS]| output_gradient(dy),
        );
    }
}

/// Writes `A^T m A` of the rows of the matrices `m` to the tiles from `first` on of the images `y`.
/// Outputs outside the images are dropped.
pub(super) fn transform_outputs(
    m: (Matrices, &[f32]),
    tiles: Tiles,
    first: usize,
    y: (Images, &mut [f32]),
) {
    run(OutputTransform { m, tiles, first, y });
}

struct OutputTransform<'a> {
    m: (Matrices, &'a [f32]),
    tiles: Tiles,
    first: usize,
    y: (Images, &'a mut [f32]),
}

impl Vectorized for OutputTransform<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let ((matrices, from), (y, to)) = (self.m, self.y);
        let outside = y.pixel(0, -1, -1);
        for row in 0..matrices.rows {
            let (image, i, j) = self.tiles.origin(self.first + row);
            let pixels = y.pixels::<OUTPUTS>(image, i, j);
            for column in (0..y.width()).step_by(V::LANES) {
                let outputs = square(
                    &matrices.read::<V>(row, column, from),
                    #[inline(always)]
                    |x| output(x),
                );
                for (&at, outputs) in pixels.as_flattened().iter().zip(outputs.as_flattened()) {
                    if at != outside {
                        outputs.to_slice(&mut to[at + column..]);
                    }
                }
            }
        }
    }
}

/// The weights of a convolution, or of its input gradient: the latter rotates each kernel by 180
/// degrees and exchanges C and O.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    /// `[O, C, 3, 3]`
    pub(super) w: &'a [f32],
    pub(super) c: usize,
    pub(super) o: usize,
    /// Whether the weights are used for the input gradient.
    pub(super) is_rotated: bool,
}

impl Kernel<'_> {
    /// Writes `G g G^T` to the matrices `to`, whose rows are the input channels from `input` on,
    /// and whose columns are the output channels from `output` on.
    pub(super) fn transform(self, output: usize, input: usize, to: (Matrices, &mut [f32])) {
        run(KernelTransform {
            kernel: self,
            output,
            input,
            to,
        });
    }
}

const TAPS: usize = KERNEL * KERNEL;

struct KernelTransform<'a> {
    kernel: Kernel<'a>,
    output: usize,
    input: usize,
    to: (Matrices, &'a mut [f32]),
}

impl Vectorized for KernelTransform<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Kernel {
            w,
            c,
            o,
            is_rotated,
        } = self.kernel;
        let (matrices, to) = self.to;
        let (outputs, input_stride, output_stride) = if is_rotated {
            (c, c * TAPS, TAPS)
        } else {
            (o, TAPS, c * TAPS)
        };
        for row in 0..matrices.rows {
            for column in (0..matrices.columns).step_by(V::LANES) {
                let first = self.output + column;
                let present = outputs.saturating_sub(first).min(V::LANES);
                let start = (self.input + row) * input_stride + first * output_stride;
                let mut taps = [[0.0; LANES]; TAPS];
                // The columns of padding have no weights.
                let w = w.get(start..).unwrap_or_default();
                load_taps::<V>(w, output_stride, present, &mut taps);
                if is_rotated {
                    taps.reverse();
                }
                let mut g = [[V::splat(0.0); KERNEL]; KERNEL];
                for (g, taps) in g.as_flattened_mut().iter_mut().zip(&taps) {
                    *g = V::from_slice(taps);
                }
                matrices.write(
                    row,
                    column,
                    square(
                        &g,
                        #[inline(always)]
                        |x| kernel(x),
                    ),
                    to,
                );
            }
        }
    }
}

/// Transposes `present` kernels, at the indices 0, `stride` and so on, to rows with one tap each.
#[inline(always)]
fn load_taps<V: Vector>(w: &[f32], stride: usize, present: usize, taps: &mut [[f32; LANES]; TAPS]) {
    let whole = present / SIDE * SIDE;
    for lane in (0..whole).step_by(SIDE) {
        let to = &mut taps.as_flattened_mut()[lane..];
        V::transpose(&w[lane * stride..], stride, to, LANES);
    }
    for lane in 0..present {
        let rest = if lane < whole { SIDE } else { 0 };
        for tap in rest..TAPS {
            taps[tap][lane] = w[lane * stride + tap];
        }
    }
}

/// The inverse of [`load_taps`].
#[inline(always)]
fn store_taps<V: Vector>(
    taps: &[[f32; LANES]; TAPS],
    present: usize,
    w: &mut [f32],
    stride: usize,
) {
    let whole = present / SIDE * SIDE;
    for lane in (0..whole).step_by(SIDE) {
        let from = &taps.as_flattened()[lane..];
        V::transpose(from, LANES, &mut w[lane * stride..], stride);
    }
    for lane in 0..present {
        let rest = if lane < whole { SIDE } else { 0 };
        for tap in rest..TAPS {
            w[lane * stride + tap] = taps[tap][lane];
        }
    }
}

/// Adds the dU of several groups, `partials`, and writes `G^T dU G` to
/// `dw [outputs, channels, 3, 3]`. Reads the columns from `column` on, and writes the channels from
/// `channel` on.
pub(super) fn transform_kernel_gradient(
    partials: (Matrices, &[f32]),
    column: usize,
    dw: &mut [f32],
    channels: usize,
    channel: usize,
) {
    run(KernelGradientTransform {
        partials,
        column,
        dw,
        channels,
        channel,
    });
}

struct KernelGradientTransform<'a> {
    partials: (Matrices, &'a [f32]),
    column: usize,
    dw: &'a mut [f32],
    channels: usize,
    channel: usize,
}

impl Vectorized for KernelGradientTransform<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let ((matrices, partials), dw) = (self.partials, self.dw);
        let outputs = dw.len() / (TAPS * self.channels).max(1);
        for column in (0..outputs).step_by(V::LANES) {
            let present = (outputs - column).min(V::LANES);
            for row in 0..matrices.rows {
                let mut sum = [[V::splat(0.0); POINTS]; POINTS];
                for group in partials.chunks(matrices.len()) {
                    let part = matrices.read::<V>(row, self.column + column, group);
                    for (sum, part) in sum.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                        *sum = sum.add(*part);
                    }
                }
                let mut taps = [[0.0; LANES]; TAPS];
                let gradients = square(
                    &sum,
                    #[inline(always)]
                    |x| kernel_gradient(x),
                );
                for (taps, gradients) in taps.iter_mut().zip(gradients.as_flattened()) {
                    gradients.to_slice(taps);
                }
                let start = (column * self.channels + self.channel + row) * TAPS;
                store_taps::<V>(&taps, present, &mut dw[start..], self.channels * TAPS);
            }
        }
    }
}
