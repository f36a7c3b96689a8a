//! Images with their channels innermost, where the transforms of Winograd's convolution find a register of them, and
//! the transforms of whole tiles and kernels between them and the matrices that are multiplied.
//!
//! A transformed thing is 36 matrices, one a point.

use super::transforms::{
    KERNEL, OUTPUTS, POINTS, PRODUCTS, input, kernel, kernel_gradient, output, output_gradient,
    square,
};
use super::transpose::transpose;
use super::vector::{SIDE, Vector, Work, run};
use crate::device::cpu::activations::Activations;

/// Channels are filled up to a multiple of it: the floats of the widest register.
pub(super) const LANES: usize = 16;
/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// 36 matrices of `rows` x `columns`, cut into panels of columns: `[panel, point, row, column of the panel]`.
#[derive(Clone, Copy)]
pub(super) struct Matrices {
    pub(super) rows: usize,
    /// A multiple of `panel`; elements past the channels have no meaning.
    pub(super) columns: usize,
    pub(super) panel: usize,
}

impl Matrices {
    /// Row by row: one panel.
    pub(super) fn whole(rows: usize, channels: usize) -> Self {
        let columns = channels.next_multiple_of(LANES);
        Matrices {
            rows,
            columns,
            panel: columns,
        }
    }

    /// Panels of [`PANEL`].
    pub(super) fn panels(rows: usize, channels: usize) -> Self {
        Matrices {
            rows,
            columns: channels.next_multiple_of(PANEL),
            panel: PANEL,
        }
    }

    /// From one point to the next: a cache line more than the panel's elements, since 36 places a power of two apart
    /// would share the same few lines of the cache.
    fn of_point(self) -> usize {
        self.rows * self.panel + 16
    }

    pub(super) fn len(self) -> usize {
        self.columns / self.panel * PRODUCTS * self.of_point()
    }

    /// Where an element stands.
    #[inline(always)]
    pub(super) fn at(self, point: usize, row: usize, column: usize) -> usize {
        let panel = column / self.panel;
        (panel * PRODUCTS + point) * self.of_point() + row * self.panel + column % self.panel
    }

    #[inline(always)]
    fn write<V: Vector>(self, row: usize, column: usize, x: [[V; POINTS]; POINTS], to: &mut [f32]) {
        let first = self.at(0, row, column);
        for (point, x) in x.as_flattened().iter().enumerate() {
            x.put(&mut to[first + point * self.of_point()..]);
        }
    }

    #[inline(always)]
    fn read<V: Vector>(self, row: usize, column: usize, from: &[f32]) -> [[V; POINTS]; POINTS] {
        let first = self.at(0, row, column);
        let mut x = [[V::splat(0.0); POINTS]; POINTS];
        for (point, x) in x.as_flattened_mut().iter_mut().enumerate() {
            *x = V::first_of(&from[first + point * self.of_point()..]);
        }
        x
    }
}

/// Images `[images, h, w, channels]` with the channels filled up to lanes, and one pixel of zeros after them that
/// stands for every pixel outside.
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

    /// From the images `first_image ..` and their channels `first_channel ..` of `x` `[_, channels_of_x, h, w]`.
    pub(super) fn gather(
        self,
        x: Activations<'_>,
        channels_of_x: usize,
        [first_image, first_channel]: [usize; 2],
        to: &mut [f32],
    ) {
        let (pixels, width) = (self.h * self.w, self.width());
        for (image, to) in to
            .chunks_exact_mut(pixels * width)
            .take(self.images)
            .enumerate()
        {
            let start = ((first_image + image) * channels_of_x + first_channel) * pixels;
            x.with(start..start + self.channels * pixels, |planes| {
                transpose((planes, pixels), [self.channels, pixels], (to, width));
            });
        }
        to[self.images * pixels * width..][..width].fill(0.0);
    }

    /// Accumulate `[channels, h, w]` of image `image`, at `planes`.
    pub(super) fn scatter(self, image: usize, from: &[f32], planes: &mut [f32]) {
        let (pixels, width) = (self.h * self.w, self.width());
        let from = &from[image * pixels * width..][..pixels * width];
        transpose((from, width), [pixels, self.channels], (planes, pixels));
    }

    /// Elements from the start of the buffer to a pixel, to the zeros where it lies outside.
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

    /// The pixels of a square whose first is (row, column).
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

/// The channels `column ..` of pixels.
#[inline(always)]
fn load_square<V: Vector, const S: usize>(
    from: &[f32],
    pixels: &[[usize; S]; S],
    column: usize,
) -> [[V; S]; S] {
    let mut d = [[V::splat(0.0); S]; S];
    for (line, pixels) in d.iter_mut().zip(pixels) {
        for (d, at) in line.iter_mut().zip(pixels) {
            *d = V::first_of(&from[at + column..]);
        }
    }
    d
}

/// The tiles of 4 x 4 that cover the outputs of an image, in rows.
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
    fn place(self, tile: usize) -> (usize, isize, isize) {
        let (image, tile) = (tile / self.per_image(), tile % self.per_image());
        let (row, column) = (tile / self.across * OUTPUTS, tile % self.across * OUTPUTS);
        (image, row as isize, column as isize)
    }
}

/// `B^T d B` of the tiles from `first` on, one a row of the matrices `to`.
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

/// `A dy A^T` of the tiles from `first` on, one a row of the matrices `to`.
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

/// The transform of inputs, in squares of [`POINTS`] pixels a side, or of output gradients, in squares of [`OUTPUTS`].
struct ImageTransform<'a, const SIDE: usize> {
    images: (Images, &'a [f32]),
    tiles: Tiles,
    padding: isize,
    first: usize,
    to: (Matrices, &'a mut [f32]),
}

impl<const SIDE: usize> ImageTransform<'_, SIDE> {
    /// `f` is handed on by value: a call through a reference to it is not inlined, for 1.6 times the time of a step.
    #[inline(always)]
    fn transform<V: Vector>(self, f: impl Fn([V; SIDE]) -> [V; POINTS] + Copy) {
        let ((images, from), (matrices, to)) = (self.images, self.to);
        for row in 0..matrices.rows {
            let (image, i, j) = self.tiles.place(self.first + row);
            let pixels = images.pixels(image, i - self.padding, j - self.padding);
            for column in (0..images.width()).step_by(V::LANES) {
                let d = load_square::<V, SIDE>(from, &pixels, column);
                matrices.write(row, column, square(&d, f), to);
            }
        }
    }
}

impl Work for ImageTransform<'_, POINTS> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        self.transform(
            #[inline(always)]
            |d: [V; POINTS]| input(d),
        );
    }
}

impl Work for ImageTransform<'_, OUTPUTS> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        self.transform(
            #[inline(always)]
            |dy: [V; OUTPUTS]| output_gradient(dy),
        );
    }
}

/// `A^T m A` of the rows of the matrices `m` into the tiles from `first` on; what lies outside is dropped.
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

impl Work for OutputTransform<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let ((matrices, from), (y, to)) = (self.m, self.y);
        let outside = y.pixel(0, -1, -1);
        for row in 0..matrices.rows {
            let (image, i, j) = self.tiles.place(self.first + row);
            let pixels = y.pixels::<OUTPUTS>(image, i, j);
            for column in (0..y.width()).step_by(V::LANES) {
                let outputs = square(
                    &matrices.read::<V>(row, column, from),
                    #[inline(always)]
                    |x| output(x),
                );
                for (&at, outputs) in pixels.as_flattened().iter().zip(outputs.as_flattened()) {
                    if at != outside {
                        outputs.put(&mut to[at + column..]);
                    }
                }
            }
        }
    }
}

/// The weights of a convolution, or of its input gradient: there the kernel is turned by half a turn and the channels
/// change places.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    /// `[O, C, 3, 3]`
    pub(super) w: &'a [f32],
    pub(super) c: usize,
    pub(super) o: usize,
    pub(super) turned: bool,
}

impl Kernel<'_> {
    /// Channels that the convolution reads and channels that it writes.
    pub(super) fn channels(self) -> (usize, usize) {
        if self.turned {
            (self.o, self.c)
        } else {
            (self.c, self.o)
        }
    }

    /// `G g G^T` for the written channels `written ..` and the read channels `read ..`, as matrices of a row a read
    /// channel.
    pub(super) fn transform(self, written: usize, read: usize, to: (Matrices, &mut [f32])) {
        run(KernelTransform {
            kernel: self,
            written,
            read,
            to,
        });
    }
}

const TAPS: usize = KERNEL * KERNEL;

struct KernelTransform<'a> {
    kernel: Kernel<'a>,
    written: usize,
    read: usize,
    to: (Matrices, &'a mut [f32]),
}

impl Work for KernelTransform<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (Kernel { w, c, turned, .. }, (matrices, to)) = (self.kernel, self.to);
        let (_, written) = self.kernel.channels();
        let (read_stride, write_stride) = match turned {
            false => (TAPS, c * TAPS),
            true => (c * TAPS, TAPS),
        };
        for row in 0..matrices.rows {
            for column in (0..matrices.columns).step_by(V::LANES) {
                let first = self.written + column;
                let present = written.saturating_sub(first).min(V::LANES);
                let at = (self.read + row) * read_stride + first * write_stride;
                let mut taps = [[0.0; LANES]; TAPS];
                // Past the last channel there is none.
                let w = w.get(at..).unwrap_or_default();
                turn_taps::<V>(w, write_stride, present, &mut taps);
                if turned {
                    taps.reverse();
                }
                let mut g = [[V::splat(0.0); KERNEL]; KERNEL];
                for (g, taps) in g.as_flattened_mut().iter_mut().zip(&taps) {
                    *g = V::first_of(taps);
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

/// The taps of the kernels at 0, `stride` and so on, `present` of them, as rows of a tap each.
#[inline(always)]
fn turn_taps<V: Vector>(w: &[f32], stride: usize, present: usize, taps: &mut [[f32; LANES]; TAPS]) {
    let whole = present / SIDE * SIDE;
    for lane in (0..whole).step_by(SIDE) {
        V::turn(
            &w[lane * stride..],
            stride,
            &mut taps.as_flattened_mut()[lane..],
            LANES,
        );
    }
    for lane in 0..present {
        let rest = if lane < whole { SIDE } else { 0 };
        for tap in rest..TAPS {
            taps[tap][lane] = w[lane * stride + tap];
        }
    }
}

/// The inverse of [`turn_taps`].
#[inline(always)]
fn turn_taps_back<V: Vector>(
    taps: &[[f32; LANES]; TAPS],
    present: usize,
    w: &mut [f32],
    stride: usize,
) {
    let whole = present / SIDE * SIDE;
    for lane in (0..whole).step_by(SIDE) {
        V::turn(
            &taps.as_flattened()[lane..],
            LANES,
            &mut w[lane * stride..],
            stride,
        );
    }
    for lane in 0..present {
        let rest = if lane < whole { SIDE } else { 0 };
        for tap in rest..TAPS {
            w[lane * stride + tap] = taps[tap][lane];
        }
    }
}

/// `G^T dU G` of the sums `partials` of several groups, columns `column ..`, into the channels `channel ..` of `dw`
/// `[outputs, channels, 3, 3]`.
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

impl Work for KernelGradientTransform<'_> {
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
                    gradients.put(taps);
                }
                let at = (column * self.channels + self.channel + row) * TAPS;
                turn_taps_back::<V>(&taps, present, &mut dw[at..], self.channels * TAPS);
            }
        }
    }
}
