//! Convolutions as products of `shaders/gemm_pairs.wgsl`, on a processor's Vulkan: those of 1x1 kernels as they lie,
//! those of 3x3 kernels by way of `shaders/unfold.wgsl`, a few images at a time.

use super::GpuDevice;
use super::gemm::Tile;
use super::gemm_pairs::{Images, Lie, Product, Taps};
use super::shaders::by_taps;
use super::stream::Part;
use super::unfold::{self, SIDE, unfold};
use crate::device::shapes::ConvGeometry;
use crate::device::variants::Variant;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements of the unfolded images, where one image fits: 8 MiB.
const UNFOLDED: usize = 2 << 20;

/// Parts of a batch that are unfolded one after the other, at most: each makes bind groups of its own.
const PARTS: usize = 32;

/// The kernels whose results have a pixel for each of the input's.
#[derive(Clone, Copy)]
enum Kernel {
    /// 1x1.
    Single,
    /// 3x3 with a padding of 1.
    Square,
}

impl Kernel {
    fn of(device: &GpuDevice, tile: &Tile, dtype: DType, g: &ConvGeometry) -> Option<Kernel> {
        let may = tile.variant == Variant::Subgroup8Large && dtype == DType::F32 && g.stride == 1;
        match [g.kh, g.kw, g.padding] {
            _ if !may || !device.context.has_i64 => None,
            [1, 1, 0] => Some(Kernel::Single),
            [SIDE, SIDE, 1] => Some(Kernel::Square),
            _ => None,
        }
    }
}

/// How a kernel's images are taken from `[n, c, h, w]`.
#[derive(Clone, Copy)]
struct Way {
    kernel: Kernel,
    c: usize,
    h: usize,
    w: usize,
    /// Whether the rows of taps share what is unfolded.
    shared: bool,
}

/// Images as a product reads them, in elements.
struct Seen {
    part: Part,
    offset: usize,
    /// From a plane to the next, from a tap's pixels to the next tap's, and to those of the next row of taps.
    plane: usize,
    tap: usize,
    tap_row: usize,
    /// Kept until the kernel is recorded: the pool would hand its memory out again.
    _unfolded: Option<Tensor>,
}

impl Way {
    /// For images of `[c, h, w]`, whose vectors along the pixels have `vector` elements; none where they are not whole,
    /// or one unfolded image does not fit a binding.
    fn new(
        device: &GpuDevice,
        kernel: Kernel,
        [c, h, w]: [usize; 3],
        vector: usize,
    ) -> Option<Way> {
        let way = Way {
            kernel,
            c,
            h,
            w,
            shared: w.is_multiple_of(vector),
        };
        let whole = match kernel {
            Kernel::Single => true,
            Kernel::Square => w.is_multiple_of(4),
        };
        let fits = 4 * way.elements() as u64 + 256 <= device.context.binding_limit;
        (whole && fits && (h * w).is_multiple_of(vector)).then_some(way)
    }

    /// Elements of an unfolded image.
    fn elements(&self) -> usize {
        match self.kernel {
            Kernel::Single => 0,
            Kernel::Square => unfold::elements([self.c, self.h, self.w], self.shared),
        }
    }

    /// Images of a batch of `n` to be taken at once, at most.
    fn images(&self, n: usize) -> usize {
        match self.elements() {
            0 => usize::MAX,
            elements => (UNFOLDED / elements).max(n.div_ceil(PARTS)),
        }
    }

    /// `images` images from an element of a part on.
    fn see(
        &self,
        device: &GpuDevice,
        operation: &'static str,
        (part, offset): (Part, usize),
        images: usize,
    ) -> Result<Seen> {
        let Kernel::Square = self.kernel else {
            return Ok(Seen {
                part,
                offset,
                plane: self.h * self.w,
                tap: 0,
                tap_row: 0,
                _unfolded: None,
            });
        };
        let shape = [images, self.c, self.h, self.w];
        let unfolded = unfold(device, operation, (part, offset), shape, self.shared)?;
        Ok(Seen {
            part: device.whole(operation, "the unfolded images", &unfolded.y)?,
            offset: 0,
            plane: unfolded.plane,
            tap: unfolded.tap,
            tap_row: unfolded.tap_row,
            _unfolded: Some(unfolded.y),
        })
    }
}

/// The weight with a matrix `[o, c]` for each tap.
fn by_taps(
    device: &GpuDevice,
    operation: &'static str,
    w: &Tensor,
    kernel: Kernel,
) -> Result<Tensor> {
    let Kernel::Square = kernel else {
        return Ok(w.clone());
    };
    let turned = device.floats(&[w.len()])?;
    let eights = w.len() / (SIDE * SIDE * 8);
    let params = by_taps::Params {
        eights: eights as u32,
    };
    let parts = [
        device.whole(operation, "w", w)?,
        device.whole(operation, "w by taps", &turned)?,
    ];
    device.launch(&by_taps::TURN, params, &parts, eights.div_ceil(8))?;
    Ok(turned)
}

/// Records a convolution, or with `back` the gradient of its input: `[n, from, h, w]` to `[n, to, h, w]`. False where
/// it is none of these products, or does not lie in whole vectors: then no result was written.
pub(super) fn record(
    device: &GpuDevice,
    operation: &'static str,
    tile: &Tile,
    g: &ConvGeometry,
    [input, w, output]: [&Tensor; 3],
    back: bool,
) -> Result<bool> {
    let (from, to) = if back { (g.o, g.c) } else { (g.c, g.o) };
    let way = Kernel::of(device, tile, input.dtype(), g)
        .and_then(|kernel| Way::new(device, kernel, [from, g.h, g.w], 8));
    let channels = match g.kh {
        SIDE => g.c.is_multiple_of(8) && g.o.is_multiple_of(4),
        _ => g.c.is_multiple_of(4) && g.o.is_multiple_of(4),
    };
    let (Some(way), true) = (way, channels) else {
        return Ok(false);
    };
    let plane = g.h * g.w;
    let weight = by_taps(device, operation, w, way.kernel)?;
    let [from_row, to_row] = [from * plane, to * plane];
    let elements = [from_row, to_row, way.elements()];
    for (start, count) in device.row_ranges(operation, g.n, &elements, way.images(g.n))? {
        let input = device.part_from(
            operation,
            "input",
            input,
            start * from_row,
            count * from_row,
        )?;
        let (output, c_offset) =
            device.part_from(operation, "output", output, start * to_row, count * to_row)?;
        let seen = way.see(device, operation, input, count)?;
        // Going back, a pixel meets the taps in the opposite order.
        let sign = if back { -1 } else { 1 };
        let last = (g.kh - 1) * seen.tap_row + (g.kw - 1) * seen.tap;
        let product = Product {
            m: to,
            n: count * plane,
            k: from,
            a: match back {
                false => Lie {
                    offset: 0,
                    term: 1,
                    step: g.c,
                },
                true => Lie {
                    offset: 0,
                    term: g.c,
                    step: 1,
                },
            },
            b: Lie {
                offset: seen.offset + if back { last } else { 0 },
                term: seen.plane,
                step: 1,
            },
            c_offset,
            c_stride: plane,
            column: 0,
            accumulate: false,
            bias: false,
            images: Some(Images {
                plane,
                b: from * seen.plane,
                other: to_row,
            }),
            run: None,
            taps: Taps {
                rows: g.kh,
                columns: g.kw,
                a: g.o * g.c,
                b: sign * seen.tap as isize,
                b_row: sign * seen.tap_row as isize,
            },
        };
        let Some((entry, params)) = product.in_pairs(device) else {
            return Ok(false);
        };
        let parts = [device.whole(operation, "w", &weight)?, seen.part, output];
        device.launch(entry, params, &parts, tile.workgroups(to, count * plane))?;
    }
    Ok(true)
}

/// A weight's gradient as a product.
pub(super) struct WeightGradient(Way);

impl WeightGradient {
    /// None where it is none of these products, or does not lie in whole vectors.
    pub(super) fn new(
        device: &GpuDevice,
        tile: &Tile,
        dtype: DType,
        g: &ConvGeometry,
    ) -> Option<WeightGradient> {
        let kernel = Kernel::of(device, tile, dtype, g)?;
        let way = Way::new(device, kernel, [g.c, g.h, g.w], 4)?;
        (g.kh * g.kw * g.c)
            .is_multiple_of(8)
            .then_some(WeightGradient(way))
    }

    /// Elements that are unfolded for an image, and images to be taken at once at most.
    pub(super) fn elements(&self) -> usize {
        self.0.elements()
    }

    pub(super) fn images(&self, n: usize) -> usize {
        self.0.images(n)
    }

    /// Records the sums over `images` images in runs of `rows_per_split` rows, into `partials`, from an element of `dy`
    /// and one of `x` on. False, and no sum written, where a run is not whole vectors.
    pub(super) fn record(
        &self,
        device: &GpuDevice,
        g: &ConvGeometry,
        images: usize,
        [(dy, dy_offset), x]: [(Part, usize); 2],
        partials: Part,
        [rows_per_split, workgroups]: [usize; 2],
    ) -> Result<bool> {
        let seen = self.0.see(device, "conv2d_dw", x, images)?;
        let plane = g.h * g.w;
        let columns = g.kh * g.kw * g.c;
        let product = Product {
            m: g.o,
            n: columns,
            k: images * plane,
            a: Lie {
                offset: dy_offset,
                term: 1,
                step: plane,
            },
            b: Lie {
                offset: seen.offset,
                term: 1,
                step: seen.plane,
            },
            c_offset: 0,
            c_stride: columns,
            column: 0,
            accumulate: false,
            bias: false,
            images: Some(Images {
                plane,
                b: g.c * seen.plane,
                other: g.o * plane,
            }),
            run: Some(rows_per_split * g.w),
            taps: Taps {
                rows: g.kh,
                columns: g.kw,
                a: 0,
                b: seen.tap as isize,
                b_row: seen.tap_row as isize,
            },
        };
        let Some((entry, params)) = product.in_pairs(device) else {
            return Ok(false);
        };
        device.launch(entry, params, &[dy, seen.part, partials], workgroups)?;
        Ok(true)
    }
}
