//! What fits an operation: the shape checks that both devices share, and the geometry that follows from them.

use super::kernels::HostSlice;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Stride and zero padding of a square convolution, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    pub stride: usize,
    pub padding: usize,
}

/// Window, stride and padding of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// The sizes of one convolution, all checked against each other.
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
    pub fn x_shape(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }

    pub fn w_shape(&self) -> [usize; 4] {
        [self.o, self.c, self.kh, self.kw]
    }

    pub fn y_shape(&self) -> [usize; 4] {
        [self.n, self.o, self.oh, self.ow]
    }

    pub fn conv(&self) -> Conv2d {
        Conv2d {
            stride: self.stride,
            padding: self.padding,
        }
    }

    /// FLOPs of one pass (a multiply-add is two); the two gradients cost the same.
    pub fn flops(&self) -> u64 {
        2 * (self.n * self.o * self.oh * self.ow) as u64 * (self.c * self.kh * self.kw) as u64
    }
}

/// The sizes of a matrix product: `C [m, n] = A [m, k] B [k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmGeometry {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// The output size of a window moved along `size` cells.
fn windows(
    operation: &'static str,
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<usize> {
    if stride == 0 || kernel == 0 {
        return Err(Error::shape(
            operation,
            format!("kernel {kernel} and stride {stride} must be at least 1"),
        ));
    }
    if size + 2 * padding < kernel {
        return Err(Error::shape(
            operation,
            format!("a kernel of {kernel} does not fit an input of {size} with padding {padding}"),
        ));
    }
    Ok((size + 2 * padding - kernel) / stride + 1)
}

/// Fails where a tensor has more elements than a kernel can index (32 bits).
pub fn check_elements(operation: &'static str, shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .filter(|&count| count <= u32::MAX as usize)
        .ok_or_else(|| {
            Error::shape(
                operation,
                format!("{shape:?} has more than 2^32 - 1 elements; use a smaller batch"),
            )
        })
}

/// The geometry of a convolution of `x_shape` with `w_shape`.
pub fn conv2d(
    operation: &'static str,
    x_shape: [usize; 4],
    w_shape: [usize; 4],
    conv: Conv2d,
) -> Result<ConvGeometry> {
    let [n, c, h, w] = x_shape;
    let [o, wc, kh, kw] = w_shape;
    if c != wc {
        return Err(Error::shape(
            operation,
            format!("x has {c} channels and w {w_shape:?} expects {wc}"),
        ));
    }
    if [n, c, h, w, o, kh, kw].contains(&0) {
        return Err(Error::shape(
            operation,
            format!("x {x_shape:?} and w {w_shape:?} must have at least one element"),
        ));
    }
    let geometry = ConvGeometry {
        n,
        c,
        h,
        w,
        o,
        kh,
        kw,
        oh: windows(operation, h, kh, conv.stride, conv.padding)?,
        ow: windows(operation, w, kw, conv.stride, conv.padding)?,
        stride: conv.stride,
        padding: conv.padding,
    };
    check_elements(operation, &geometry.x_shape())?;
    check_elements(operation, &geometry.y_shape())?;
    Ok(geometry)
}

/// The output shape of a pooling of `x_shape`.
pub fn pool2d(operation: &'static str, x_shape: [usize; 4], pool: Pool2d) -> Result<[usize; 4]> {
    let [n, c, h, w] = x_shape;
    if 2 * pool.padding > pool.kernel {
        return Err(Error::shape(
            operation,
            format!(
                "padding {} is more than half of kernel {}: a window could hold padding alone",
                pool.padding, pool.kernel
            ),
        ));
    }
    Ok([
        n,
        c,
        windows(operation, h, pool.kernel, pool.stride, pool.padding)?,
        windows(operation, w, pool.kernel, pool.stride, pool.padding)?,
    ])
}

/// The geometry of a matrix product.
pub fn gemm(options: super::kernels::Gemm, a: &Tensor, b: &Tensor) -> Result<GemmGeometry> {
    let [a0, a1] = a.matrix("gemm", "a")?;
    let [b0, b1] = b.matrix("gemm", "b")?;
    let (m, k) = if options.transpose_a {
        (a1, a0)
    } else {
        (a0, a1)
    };
    let (kb, n) = if options.transpose_b {
        (b1, b0)
    } else {
        (b0, b1)
    };
    if k != kb {
        return Err(Error::shape(
            "gemm",
            format!(
                "op(a) is {m} x {k} and op(b) is {kb} x {n}; the inner sizes must be equal \
                 (a {:?}, b {:?}, {options:?})",
                a.shape(),
                b.shape()
            ),
        ));
    }
    check_elements("gemm", &[m, n])?;
    Ok(GemmGeometry { m, n, k })
}

/// Fails unless the two tensors have the same shape and type.
pub fn same(operation: &'static str, a: (&str, &Tensor), b: (&str, &Tensor)) -> Result<()> {
    b.1.expect(operation, b.0, a.1.shape(), a.1.dtype())
}

/// Fails unless `x` holds floats.
pub fn floats(operation: &'static str, name: &str, x: &Tensor) -> Result<()> {
    x.expect(operation, name, x.shape(), DType::F32)
}

/// Fails unless `x` holds f32 or f16, the types of activations.
pub fn activations(operation: &'static str, name: &str, x: &Tensor) -> Result<()> {
    activation_type(operation, name, x.dtype())
}

/// Fails unless `dtype` is one that activations have.
pub fn activation_type(operation: &'static str, name: &str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F16 => Ok(()),
        other => Err(Error::shape(
            operation,
            format!("{name} is {other:?}; expected F32 or F16"),
        )),
    }
}

/// The rows and columns of NT-Xent's embeddings: an even number of rows, at least two.
pub fn nt_xent(z: &Tensor, temperature: f32) -> Result<[usize; 2]> {
    let [rows, columns] = z.matrix("nt_xent", "z")?;
    floats("nt_xent", "z", z)?;
    if rows < 2 || rows % 2 != 0 || columns == 0 {
        return Err(Error::shape(
            "nt_xent",
            format!(
                "z has shape {:?}; expected 2N rows (two views of each image) of at least one number",
                z.shape()
            ),
        ));
    }
    if temperature.is_nan() || temperature <= 0.0 {
        return Err(Error::shape(
            "nt_xent",
            format!("temperature {temperature} must be above 0"),
        ));
    }
    Ok([rows, columns])
}

/// Fails unless `data` has exactly the elements of `shape`.
pub fn host_slice(operation: &'static str, data: HostSlice<'_>, shape: &[usize]) -> Result<DType> {
    let (count, dtype) = match data {
        HostSlice::F32(s) => (s.len(), DType::F32),
        HostSlice::U32(s) => (s.len(), DType::U32),
        HostSlice::U8(s) => (s.len(), DType::U8),
    };
    let expected = check_elements(operation, shape)?;
    if count != expected {
        return Err(Error::shape(
            operation,
            format!("{count} numbers were given for shape {shape:?}, which has {expected}"),
        ));
    }
    Ok(dtype)
}

/// Fails unless there is one parameter an image.
pub fn one_per_image(operation: &'static str, images: usize, parameters: usize) -> Result<()> {
    if images != parameters {
        return Err(Error::shape(
            operation,
            format!("{parameters} parameters were given for {images} images"),
        ));
    }
    Ok(())
}

/// The longest side of an image that is resized, before or after.
const LARGEST_RESIZE_SIDE: usize = 16_384;

/// The shape of `x`; fails where a crop's box is empty or leaves its image.
pub fn resized_crops(
    x: &Tensor,
    crops: &[super::kernels::ResizedCrop],
    size: usize,
) -> Result<[usize; 4]> {
    let [n, c, h, w] = x.nchw("resized_crop", "x")?;
    floats("resized_crop", "x", x)?;
    if size == 0 {
        return Err(Error::shape("resized_crop", "the size must be at least 1"));
    }
    // The filter's weights are whole numbers of 32 bits: see `device/cpu/resized_crop.rs`.
    if h.max(w).max(size) > LARGEST_RESIZE_SIDE {
        return Err(Error::shape(
            "resized_crop",
            format!(
                "{h} x {w} to {size} x {size}: a side may have at most {LARGEST_RESIZE_SIDE} pixels"
            ),
        ));
    }
    for crop in crops {
        let inside = (crop.image as usize) < n
            && crop.height > 0
            && crop.width > 0
            && crop.top as usize + crop.height as usize <= h
            && crop.left as usize + crop.width as usize <= w;
        if !inside {
            return Err(Error::shape(
                "resized_crop",
                format!("{crop:?} does not lie in a batch of {n} images of {h} x {w}"),
            ));
        }
    }
    check_elements("resized_crop", &[crops.len(), c, size, size])?;
    Ok([n, c, h, w])
}

/// The sizes of a gather: byte images `[M, C, H, W]` into `out`, f32 `[B, C, H, W]`, one row an index.
pub fn gather_images(images: &Tensor, indices: &[u32], out: &Tensor) -> Result<[usize; 4]> {
    const OPERATION: &str = "gather_images";
    let [_, c, h, w] = images.nchw(OPERATION, "images")?;
    images.expect(OPERATION, "images", images.shape(), DType::U8)?;
    out.expect(OPERATION, "out", &[indices.len(), c, h, w], DType::F32)?;
    Ok([indices.len(), c, h, w])
}

/// The shape of a batch of float images with three channels.
pub fn rgb_images(operation: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    let shape = x.nchw(operation, "x")?;
    floats(operation, "x", x)?;
    if shape[1] != 3 {
        return Err(Error::shape(
            operation,
            format!(
                "x has shape {:?}; expected three channels, N, 3, H, W",
                x.shape()
            ),
        ));
    }
    Ok(shape)
}

/// The shape of `x`; fails unless there is one transform an image whose factors torchvision would take: at least 0, and
/// for the hue within half a turn.
pub fn color_transforms(
    x: &Tensor,
    transforms: &[super::kernels::ColorTransform],
) -> Result<[usize; 4]> {
    use super::kernels::ColorStep;
    const OPERATION: &str = "color_transform";
    let shape = rgb_images(OPERATION, x)?;
    one_per_image(OPERATION, shape[0], transforms.len())?;
    for transform in transforms {
        for (&step, &factor) in transform.steps.iter().zip(&transform.factors) {
            let expected = if step == ColorStep::Hue as u32 {
                (factor.abs() <= 0.5, "a hue factor is within [-0.5, 0.5]")
            } else {
                (
                    (0.0..f32::INFINITY).contains(&factor),
                    "a factor is finite and at least 0",
                )
            };
            if !expected.0 {
                return Err(Error::shape(
                    OPERATION,
                    format!("{transform:?} has the factor {factor}; {}", expected.1),
                ));
            }
        }
    }
    Ok(shape)
}

/// The shape of `x`; fails unless every standard deviation is above 0.
pub fn normalize(x: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<[usize; 4]> {
    let usable =
        mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0);
    if !usable {
        return Err(Error::shape(
            "normalize",
            format!("mean {mean:?}, std {std:?}: expected finite numbers, the deviations above 0"),
        ));
    }
    rgb_images("normalize", x)
}

/// Fails unless the three tensors are floats of one shape and the step can be taken.
pub fn attack_step(
    step: super::kernels::AttackStep,
    x: &Tensor,
    dx: &Tensor,
    clean: &Tensor,
) -> Result<()> {
    let operation = "attack_step";
    let usable = step.alpha.is_finite() && step.eps >= 0.0 && step.low <= step.high;
    if !usable {
        return Err(Error::shape(
            operation,
            format!("{step:?}: expected a finite alpha, eps of 0 or more, and low up to high"),
        ));
    }
    floats(operation, "x", x)?;
    floats(operation, "dx", dx)?;
    floats(operation, "clean", clean)?;
    same(operation, ("x", x), ("dx", dx))?;
    same(operation, ("x", x), ("clean", clean))
}

/// The shape of `x`; fails unless there is one crop an image and each lies in its padded image.
pub fn padded_crops(
    x: &Tensor,
    padding: usize,
    crops: &[super::kernels::PaddedCrop],
) -> Result<[usize; 4]> {
    const OPERATION: &str = "padded_crop";
    let shape = x.nchw(OPERATION, "x")?;
    floats(OPERATION, "x", x)?;
    one_per_image(OPERATION, shape[0], crops.len())?;
    // A larger padding could give an image of zeros alone; it also keeps the sums below in 32 bits.
    if padding > shape[2].max(shape[3]) {
        return Err(Error::shape(
            OPERATION,
            format!(
                "padding {padding} is more than the image's {} x {}",
                shape[2], shape[3]
            ),
        ));
    }
    match crops
        .iter()
        .find(|crop| crop.top as usize > 2 * padding || crop.left as usize > 2 * padding)
    {
        Some(crop) => Err(Error::shape(
            OPERATION,
            format!(
                "{crop:?} leaves the image padded by {padding}; an offset is at most twice that"
            ),
        )),
        None => Ok(shape),
    }
}

/// The shape of `x`; fails unless its images are square and there is one turn of 0 to 3 quarters an image.
pub fn quarter_turns(x: &Tensor, quarter_turns: &[u32]) -> Result<[usize; 4]> {
    const OPERATION: &str = "rotate90";
    let shape = x.nchw(OPERATION, "x")?;
    floats(OPERATION, "x", x)?;
    one_per_image(OPERATION, shape[0], quarter_turns.len())?;
    if shape[2] != shape[3] {
        return Err(Error::shape(
            OPERATION,
            format!("x has shape {:?}; expected square images", x.shape()),
        ));
    }
    match quarter_turns.iter().find(|&&turns| turns > 3) {
        Some(turns) => Err(Error::shape(
            OPERATION,
            format!("{turns} quarter turns; expected 0 to 3"),
        )),
        None => Ok(shape),
    }
}

/// The number of elements of a uniform draw; fails unless its bounds are finite and in order.
pub fn uniform(low: f32, high: f32, shape: &[usize]) -> Result<usize> {
    if !(low.is_finite() && high.is_finite() && low <= high) {
        return Err(Error::shape(
            "uniform",
            format!("low {low} and high {high} must be finite, low not above high"),
        ));
    }
    check_elements("uniform", shape)
}

/// Fails where an in-place operation would read and write the same elements.
pub fn distinct(operation: &'static str, a: (&str, &Tensor), b: (&str, &Tensor)) -> Result<()> {
    if a.1.id() == b.1.id() {
        return Err(Error::shape(
            operation,
            format!("{} and {} are the same tensor; copy one first", a.0, b.0),
        ));
    }
    Ok(())
}

/// The first dimension of `a` above `b`.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<usize> {
    floats("concat", "a", a)?;
    floats("concat", "b", b)?;
    match (a.shape(), b.shape()) {
        ([rows_a, rest_a @ ..], [rows_b, rest_b @ ..]) if rest_a == rest_b => Ok(rows_a + rows_b),
        _ => Err(Error::shape(
            "concat",
            format!(
                "a {:?} and b {:?} may differ in the first dimension alone",
                a.shape(),
                b.shape()
            ),
        )),
    }
}

/// The elements of one row of `x`, of which rows `start .. start + count` are wanted.
pub fn slice(x: &Tensor, start: usize, count: usize) -> Result<usize> {
    floats("slice", "x", x)?;
    match x.shape() {
        [rows, rest @ ..] if start.checked_add(count).is_some_and(|end| end <= *rows) => {
            Ok(rest.iter().product())
        }
        _ => Err(Error::shape(
            "slice",
            format!(
                "rows {start} to {start} + {count} do not lie in x {:?}",
                x.shape()
            ),
        )),
    }
}

/// The sizes of a batch norm's input, which must have at least one element a channel.
pub fn batch_norm_input(operation: &'static str, name: &str, x: &Tensor) -> Result<[usize; 4]> {
    activations(operation, name, x)?;
    let sizes = x.nchw(operation, name)?;
    if x.is_empty() {
        return Err(Error::shape(
            operation,
            format!("{name} {sizes:?} has no elements, so no mean"),
        ));
    }
    Ok(sizes)
}

/// The sizes of `x`, which must fit a batch norm and what is done to its result.
pub fn batch_norm(
    operation: &'static str,
    x: &Tensor,
    norm: &super::kernels::ChannelNorm,
    activation: super::kernels::Activation<&Tensor>,
) -> Result<[usize; 4]> {
    let sizes = batch_norm_input(operation, "x", x)?;
    channel_norm(operation, sizes[1], norm)?;
    if let Some(shortcut) = activation.shortcut() {
        shortcut.expect(operation, "shortcut", x.shape(), x.dtype())?;
    }
    Ok(sizes)
}

/// Fails unless statistics, gamma and beta hold one float a channel.
pub fn channel_norm(
    operation: &'static str,
    channels: usize,
    norm: &super::kernels::ChannelNorm,
) -> Result<()> {
    let tensors = [
        ("mean", &norm.statistics.mean),
        ("variance", &norm.statistics.variance),
        ("gamma", &norm.gamma),
        ("beta", &norm.beta),
    ];
    tensors
        .iter()
        .try_for_each(|(name, x)| x.expect(operation, name, &[channels], DType::F32))
}

/// The sizes of `dy`, which must fit the norm and the rectified result `y`.
pub fn batch_norm_evaluation_dx(
    dy: &Tensor,
    norm: &super::kernels::ChannelNorm,
    y: Option<&Tensor>,
) -> Result<[usize; 4]> {
    let operation = "batch_norm_evaluation_dx";
    let sizes = batch_norm_input(operation, "dy", dy)?;
    channel_norm(operation, sizes[1], norm)?;
    if let Some(y) = y {
        same(operation, ("dy", dy), ("y", y))?;
    }
    Ok(sizes)
}

/// Fails unless running statistics can follow a batch's: an unbiased variance needs two elements a channel.
pub fn running_update(
    running: &super::kernels::BatchStatistics,
    batch: &super::kernels::BatchStatistics,
    update: super::kernels::RunningUpdate,
    gate: Option<&Tensor>,
) -> Result<()> {
    let operation = "update_running_statistics";
    check_gate(operation, gate)?;
    same(
        operation,
        ("running mean", &running.mean),
        ("batch mean", &batch.mean),
    )?;
    same(
        operation,
        ("running mean", &running.mean),
        ("running variance", &running.variance),
    )?;
    same(
        operation,
        ("running mean", &running.mean),
        ("batch variance", &batch.variance),
    )?;
    distinct(
        operation,
        ("running mean", &running.mean),
        ("batch mean", &batch.mean),
    )?;
    distinct(
        operation,
        ("running variance", &running.variance),
        ("batch variance", &batch.variance),
    )?;
    if update.count < 2 {
        return Err(Error::shape(
            operation,
            format!(
                "{} element a channel has no unbiased variance; use a larger batch",
                update.count
            ),
        ));
    }
    Ok(())
}

/// Fails unless the gate is one u32.
pub fn check_gate(operation: &'static str, gate: Option<&Tensor>) -> Result<()> {
    gate.map_or(Ok(()), |gate| {
        gate.expect(operation, "gate", &[1], DType::U32)
    })
}

/// The rows and classes of a cross-entropy.
pub fn cross_entropy(
    operation: &'static str,
    logits: &Tensor,
    labels: &Tensor,
) -> Result<[usize; 2]> {
    let [n, classes] = logits.matrix(operation, "logits")?;
    floats(operation, "logits", logits)?;
    labels.expect(operation, "labels", &[n], DType::U32)?;
    if n == 0 || classes == 0 {
        return Err(Error::shape(
            operation,
            format!("logits {:?} have no rows or no classes", logits.shape()),
        ));
    }
    Ok([n, classes])
}

/// Fails unless gradient and state have the parameter's shape and are tensors of their own.
pub fn optimizer(
    operation: &'static str,
    parameter: &Tensor,
    gradient: &Tensor,
    state: &[(&str, &Tensor)],
    gate: Option<&Tensor>,
) -> Result<()> {
    floats(operation, "parameter", parameter)?;
    check_gate(operation, gate)?;
    let others: Vec<(&str, &Tensor)> = std::iter::once(("gradient", gradient))
        .chain(state.iter().copied())
        .collect();
    for (i, &other) in others.iter().enumerate() {
        same(operation, ("parameter", parameter), other)?;
        distinct(operation, ("parameter", parameter), other)?;
        others[..i]
            .iter()
            .try_for_each(|&earlier| distinct(operation, earlier, other))?;
    }
    Ok(())
}
