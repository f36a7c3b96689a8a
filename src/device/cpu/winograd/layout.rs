//! Images with their channels innermost, where the transforms of Winograd's convolution find eight at a time, and the
//! transforms of whole tiles and kernels between them and the matrices that are multiplied.
//!
//! A transformed thing is 36 matrices, one a point.

use super::super::vectorised::vectorised;
use super::transforms::{
    KERNEL, LANES, Lanes, OUTPUTS, POINTS, PRODUCTS, input, kernel, kernel_gradient, output,
    output_gradient, square, turned,
};

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

    /// From one point to the next: a cache line more than the panel's elements, since 36 places a power of two apart would
    /// share the same few lines of the cache.
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
    fn write(self, row: usize, column: usize, x: [[Lanes; POINTS]; POINTS], to: &mut [f32]) {
        let first = self.at(0, row, column);
        for (point, x) in x.as_flattened().iter().enumerate() {
            to[first + point * self.of_point()..][..LANES].copy_from_slice(&x.0);
        }
    }

    #[inline(always)]
    fn read(self, row: usize, column: usize, from: &[f32]) -> [[Lanes; POINTS]; POINTS] {
        let first = self.at(0, row, column);
        let mut x = [[Lanes::ZERO; POINTS]; POINTS];
        for (i, line) in x.iter_mut().enumerate() {
            for (j, x) in line.iter_mut().enumerate() {
                *x = Lanes::load(&from[first + (i * POINTS + j) * self.of_point()..]);
            }
        }
        x
    }
}

/// Images `[images, h, w, channels]` with the channels filled up to lanes, and one pixel of zeros after them that stands
/// for every pixel outside.
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

    /// From `[images, channels, h, w]`.
    pub(super) fn gather(self, planes: &[f32], to: &mut [f32]) {
        let (pixels, width) = (self.h * self.w, self.width());
        for image in 0..self.images {
            let planes = &planes[image * self.channels * pixels..][..self.channels * pixels];
            let to = &mut to[image * pixels * width..][..pixels * width];
            vectorised(
                #[inline(always)]
                || transpose(planes, self.channels, pixels, pixels, to, width),
            );
        }
        to[self.images * pixels * width..][..width].fill(0.0);
    }

    /// Into `[channels, h, w]` of image `image`, at `planes`.
    pub(super) fn scatter(self, image: usize, from: &[f32], planes: &mut [f32]) {
        let (pixels, width) = (self.h * self.w, self.width());
        let from = &from[image * pixels * width..][..pixels * width];
        vectorised(
            #[inline(always)]
            || transpose(from, pixels, self.channels, width, planes, pixels),
        );
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
    fn square<const S: usize>(self, image: usize, row: isize, column: isize) -> [[usize; S]; S] {
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
fn load_square<const S: usize>(
    from: &[f32],
    pixels: &[[usize; S]; S],
    column: usize,
) -> [[Lanes; S]; S] {
    let mut d = [[Lanes::ZERO; S]; S];
    for (line, pixels) in d.iter_mut().zip(pixels) {
        for (d, at) in line.iter_mut().zip(pixels) {
            *d = Lanes::load(&from[at + column..]);
        }
    }
    d
}

/// `to [columns, rows] = from [rows, columns]^T`, with rows of `from_width` and of `to_width`.
#[inline(always)]
fn transpose(
    from: &[f32],
    rows: usize,
    columns: usize,
    from_width: usize,
    to: &mut [f32],
    to_width: usize,
) {
    let (whole_rows, whole_columns) = (rows / LANES * LANES, columns / LANES * LANES);
    for i in (0..whole_rows).step_by(LANES) {
        for j in (0..whole_columns).step_by(LANES) {
            let mut block = [Lanes::ZERO; LANES];
            for (r, line) in block.iter_mut().enumerate() {
                *line = Lanes::load(&from[(i + r) * from_width + j..]);
            }
            for (c, line) in turned(block).iter().enumerate() {
                to[(j + c) * to_width + i..][..LANES].copy_from_slice(&line.0);
            }
        }
        for j in whole_columns..columns {
            for r in 0..LANES {
                to[j * to_width + i + r] = from[(i + r) * from_width + j];
            }
        }
    }
    for i in whole_rows..rows {
        for j in 0..columns {
            to[j * to_width + i] = from[i * from_width + j];
        }
    }
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
    (x, from): (Images, &[f32]),
    tiles: Tiles,
    padding: usize,
    first: usize,
    (matrices, to): (Matrices, &mut [f32]),
) {
    let padding = padding as isize;
    vectorised(
        #[inline(always)]
        || {
            for row in 0..matrices.rows {
                let (image, i, j) = tiles.place(first + row);
                let pixels = x.square::<POINTS>(image, i - padding, j - padding);
                for column in (0..x.width()).step_by(LANES) {
                    let d = load_square(from, &pixels, column);
                    matrices.write(row, column, square(&d, input), to);
                }
            }
        },
    );
}

/// `A dy A^T` of the tiles from `first` on, one a row of the matrices `to`.
pub(super) fn transform_output_gradients(
    (dy, from): (Images, &[f32]),
    tiles: Tiles,
    first: usize,
    (matrices, to): (Matrices, &mut [f32]),
) {
    vectorised(
        #[inline(always)]
        || {
            for row in 0..matrices.rows {
                let (image, i, j) = tiles.place(first + row);
                let pixels = dy.square::<OUTPUTS>(image, i, j);
                for column in (0..dy.width()).step_by(LANES) {
                    let d = load_square(from, &pixels, column);
                    matrices.write(row, column, square(&d, output_gradient), to);
                }
            }
        },
    );
}

/// `A^T m A` of the rows of the matrices `from` into the tiles from `first` on; what lies outside is dropped.
pub(super) fn transform_outputs(
    (matrices, from): (Matrices, &[f32]),
    tiles: Tiles,
    first: usize,
    (y, to): (Images, &mut [f32]),
) {
    let outside = y.pixel(0, -1, -1);
    vectorised(
        #[inline(always)]
        || {
            for row in 0..matrices.rows {
                let (image, i, j) = tiles.place(first + row);
                let pixels = y.square::<OUTPUTS>(image, i, j);
                for column in (0..y.width()).step_by(LANES) {
                    let outputs = square(&matrices.read(row, column, from), output);
                    for (&at, outputs) in pixels.as_flattened().iter().zip(outputs.as_flattened()) {
                        if at != outside {
                            to[at + column..][..LANES].copy_from_slice(&outputs.0);
                        }
                    }
                }
            }
        },
    );
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

    /// `G g G^T` for the written channels `first ..`, as matrices of a row a read channel.
    pub(super) fn transform(self, first: usize, (matrices, to): (Matrices, &mut [f32])) {
        const TAPS: usize = KERNEL * KERNEL;
        let (_, written) = self.channels();
        let (read_stride, write_stride) = match self.turned {
            false => (TAPS, self.c * TAPS),
            true => (self.c * TAPS, TAPS),
        };
        vectorised(
            #[inline(always)]
            || {
                for row in 0..matrices.rows {
                    for column in (0..matrices.columns).step_by(LANES) {
                        let mut taps = [Lanes::ZERO; TAPS];
                        let mut block = [Lanes::ZERO; LANES];
                        let present = written.saturating_sub(first + column).min(LANES);
                        for (lane, line) in block.iter_mut().enumerate().take(present) {
                            let at = row * read_stride + (first + column + lane) * write_stride;
                            *line = Lanes::load(&self.w[at..]);
                            taps[TAPS - 1].0[lane] = self.w[at + TAPS - 1];
                        }
                        taps[..LANES].copy_from_slice(&turned(block));
                        if self.turned {
                            taps.reverse();
                        }
                        let mut g = [[Lanes::ZERO; KERNEL]; KERNEL];
                        g.as_flattened_mut().copy_from_slice(&taps);
                        matrices.write(row, column, square(&g, kernel), to);
                    }
                }
            },
        );
    }
}

/// `G^T dU G` of the sums `partials` of several groups, columns `first ..` into `dw` `[outputs, matrices.rows, 3, 3]`.
pub(super) fn transform_kernel_gradient(
    (matrices, partials): (Matrices, &[f32]),
    first: usize,
    dw: &mut [f32],
) {
    const TAPS: usize = KERNEL * KERNEL;
    let outputs = dw.len() / (TAPS * matrices.rows).max(1);
    vectorised(
        #[inline(always)]
        || {
            for column in (0..outputs).step_by(LANES) {
                let present = (outputs - column).min(LANES);
                for row in 0..matrices.rows {
                    let mut sum = [[Lanes::ZERO; POINTS]; POINTS];
                    for group in partials.chunks(matrices.len()) {
                        let part = matrices.read(row, first + column, group);
                        for (sum, part) in
                            sum.as_flattened_mut().iter_mut().zip(part.as_flattened())
                        {
                            *sum = *sum + *part;
                        }
                    }
                    let taps = square(&sum, kernel_gradient);
                    let taps = taps.as_flattened();
                    let mut block = [Lanes::ZERO; LANES];
                    block.copy_from_slice(&taps[..LANES]);
                    let block = turned(block);
                    for (lane, line) in block.iter().enumerate().take(present) {
                        let at = ((column + lane) * matrices.rows + row) * TAPS;
                        dw[at..][..LANES].copy_from_slice(&line.0);
                        dw[at + LANES] = taps[LANES].0[lane];
                    }
                }
            }
        },
    );
}
