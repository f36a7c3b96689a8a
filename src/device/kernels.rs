//! The vocabulary: everything that a device can do, a method a kernel, with its maths and shapes.
//!
//! Images are N, C, H, W; matrices are row-major; elements are f32 unless said. Activations, and gradients of
//! activations, may be f16: a method that says so takes either type, all of its activations of one, and gives its
//! result in it; it computes in f32 and rounds each element once, as it is stored. A method allocates its results from
//! the device's pool and returns them; those that say "in place" change an argument instead. Every method checks shapes
//! and element types first (`device/shapes.rs`, shared by both devices) and fails with `Error::Shape` naming the
//! argument. A tensor belongs to the device that made it. Gradients carry a d-prefix: `dy` is the loss's gradient with
//! respect to `y`. Every reduction has a fixed order: the same call gives the same bits.

use crate::device::Readback;
use crate::device::shapes::{Conv2d, Pool2d};
use crate::device::variants::VariantTable;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Numbers on the host that are to become a tensor.
#[derive(Clone, Copy, Debug)]
pub enum HostSlice<'a> {
    F32(&'a [f32]),
    U32(&'a [u32]),
    U8(&'a [u8]),
}

/// Bytes that a device holds for tensors: now (what is free but kept for the next ones counted in), and at most so far.
/// Of memory that was taken for tensors to come, what none has lain in yet is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub current: u64,
    pub peak: u64,
}

/// Which operands of a matrix product are transposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gemm {
    pub transpose_a: bool,
    pub transpose_b: bool,
}

/// Mean and biased variance of each channel over a batch, both `[C]`.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    pub mean: Tensor,
    pub variance: Tensor,
}

/// Whether a batch norm's statistics depend on its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    OfTheBatch,
    Constant,
}

impl Statistics {
    /// The kernel that goes back through such a batch norm.
    pub(super) fn backward_kernel(self) -> &'static str {
        match self {
            Statistics::OfTheBatch => "batch_norm_training_backward",
            Statistics::Constant => "batch_norm_evaluation_backward",
        }
    }
}

/// A batch norm of each channel, with a batch's statistics or with running ones:
/// `(x - mean) / sqrt(variance + eps) gamma + beta`.
#[derive(Clone, Debug)]
pub struct ChannelNorm {
    pub statistics: BatchStatistics,
    /// `[C]`
    pub gamma: Tensor,
    /// `[C]`
    pub beta: Tensor,
    pub eps: f32,
}

/// What is done to the result of a batch norm in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Activation<T> {
    Identity,
    /// `max(y, 0)`
    Relu,
    /// `max(y + shortcut, 0)`, the end of a residual block; the shortcut has the shape of `y`.
    AddRelu(T),
}

impl<T> Activation<T> {
    /// The same with a reference to the shortcut.
    pub fn as_ref(&self) -> Activation<&T> {
        match self {
            Activation::Identity => Activation::Identity,
            Activation::Relu => Activation::Relu,
            Activation::AddRelu(shortcut) => Activation::AddRelu(shortcut),
        }
    }

    /// The same with `f` of the shortcut.
    pub fn map<S>(self, f: impl FnOnce(T) -> S) -> Activation<S> {
        match self {
            Activation::Identity => Activation::Identity,
            Activation::Relu => Activation::Relu,
            Activation::AddRelu(shortcut) => Activation::AddRelu(f(shortcut)),
        }
    }

    /// The shortcut, where there is one.
    pub fn shortcut(self) -> Option<T> {
        match self {
            Activation::AddRelu(shortcut) => Some(shortcut),
            _ => None,
        }
    }
}

/// How running statistics follow a batch's: `running = (1 - momentum) running + momentum batch`, the variance first
/// made unbiased by `count / (count - 1)` (as torch does).
#[derive(Clone, Copy, Debug)]
pub struct RunningUpdate {
    /// Elements a channel in the batch: N H W.
    pub count: usize,
    pub momentum: f32,
}

/// Gradients of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormGradients {
    /// `[N, C, H, W]`
    pub dx: Tensor,
    /// Of the scale, `[C]`.
    pub dgamma: Tensor,
    /// Of the shift, `[C]`.
    pub dbeta: Tensor,
}

/// A max-pool's result and where each maximum stood.
#[derive(Clone, Debug)]
pub struct MaxPool {
    pub y: Tensor,
    /// u32, the shape of `y`: the index within its H x W input plane; the first one where several are equal.
    pub argmax: Tensor,
}

/// Rows of length 1, and the lengths that they had.
#[derive(Clone, Debug)]
pub struct Normalized {
    pub y: Tensor,
    /// `[N]`: max(|x|, eps) of each row.
    pub norm: Tensor,
}

/// A mean loss over rows, and what its backward pass needs.
#[derive(Clone, Debug)]
pub struct RowLoss {
    /// `[1]`
    pub loss: Tensor,
    /// `[rows]`: the natural logarithm of each row's sum of exponentials.
    pub log_sum_exp: Tensor,
}

/// SGD as `torch.optim.SGD` defines it.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    pub learning_rate: f32,
    pub momentum: f32,
    pub nesterov: bool,
    pub weight_decay: f32,
    /// The gradient is this many times too large: see [`AdamStep::gradient_scale`].
    pub gradient_scale: f32,
    /// Whether this is the first update: the momentum buffer then becomes the gradient itself.
    pub first: bool,
}

/// Adam as `torch.optim.Adam` defines it: weight decay is added to the gradient.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// The gradient is this many times too large, a power of two, since the loss was scaled so that f16 gradients of
    /// activations do not vanish; it is divided by it first. 1 where nothing was scaled.
    pub gradient_scale: f32,
    /// Counted from 1.
    pub step: u32,
}

impl AdamStep {
    /// `learning_rate / (1 - beta1^t)` and `sqrt(1 - beta2^t)`, computed in float64.
    pub(crate) fn corrections(&self) -> [f32; 2] {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(self.step));
        let step_size = f64::from(self.learning_rate) / power(self.beta1);
        [step_size as f32, power(self.beta2).sqrt() as f32]
    }
}

/// The box of one resized crop, in pixels of the source image, and whether the result is mirrored left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ResizedCrop {
    /// Which image of the batch.
    pub image: u32,
    pub top: u32,
    pub left: u32,
    pub height: u32,
    pub width: u32,
    /// 1 to mirror.
    pub flip: u32,
}

/// One step of a colour change: see [`Kernels::color_transform`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ColorStep {
    /// The image stays as it is.
    Nothing = 0,
    Brightness = 1,
    Contrast = 2,
    Saturation = 3,
    Hue = 4,
    /// All three channels become the luma; the factor is not used.
    Grayscale = 5,
}

/// Up to five colour changes of one image in their order. Build it with [`ColorTransform::new`].
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ColorTransform {
    pub(crate) steps: [u32; 5],
    pub(crate) factors: [f32; 5],
}

impl ColorTransform {
    /// The steps with their factors, applied in this order; five at most, of which the rest do nothing.
    pub fn new(steps: &[(ColorStep, f32)]) -> Self {
        assert!(
            steps.len() <= 5,
            "a colour transform has at most five steps"
        );
        let mut transform = ColorTransform {
            steps: [0; 5],
            factors: [0.0; 5],
        };
        for (i, (step, factor)) in steps.iter().enumerate() {
            transform.steps[i] = *step as u32;
            transform.factors[i] = *factor;
        }
        transform
    }
}

/// A crop of an image padded with zeros, and whether the result is mirrored left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct PaddedCrop {
    /// First row and column of the crop in the padded image: 0 to twice the padding.
    pub top: u32,
    pub left: u32,
    /// 1 to mirror.
    pub flip: u32,
}

/// The key of device-side noise. The same key gives the same integers on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseKey {
    pub seed: u64,
    /// What tells this draw from others under the same seed: for example step, and purpose.
    pub stream: u64,
}

/// One step of a gradient attack: see [`Kernels::attack_step`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackStep {
    /// How far along the gradient's sign.
    pub alpha: f32,
    /// How far from the clean image at most.
    pub eps: f32,
    /// Lowest and highest value of a pixel.
    pub low: f32,
    pub high: f32,
}

/// What a device can do.
pub trait Kernels: Send + Sync {
    // Storage.

    /// The device's name, as `--device` and summaries give it.
    fn name(&self) -> String;

    /// Bytes held for tensors, now and at peak.
    fn memory(&self) -> MemoryUse;

    /// Whether tensors live in the host's own memory, as they do on the CPU and on a software or integrated GPU.
    fn in_host_memory(&self) -> bool;

    /// The table of kernels' variants in use, where there are any: the same bits need the same table.
    fn variants(&self) -> Option<VariantTable> {
        None
    }

    /// Copies `data` into a new tensor.
    fn upload(&self, data: HostSlice<'_>, shape: &[usize]) -> Result<Tensor>;

    /// Replaces the elements of `x`, in place.
    fn overwrite(&self, x: &Tensor, data: HostSlice<'_>) -> Result<()>;

    /// A new tensor of zeros.
    fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor>;

    /// A new tensor with the elements of `x`.
    fn copy(&self, x: &Tensor) -> Result<Tensor>;

    /// Starts the transfer of `x` to the host; it can be waited for later.
    fn download(&self, x: &Tensor) -> Result<Readback>;

    /// Hands everything recorded so far to the device, without waiting.
    fn submit(&self) -> Result<()>;

    // Element-wise and reductions. Tensors of any shape.

    /// The elements of `x`, f32 or f16, as `dtype`, f32 or f16: to the nearest, ties to even, beyond f16's largest
    /// number an infinity.
    fn cast(&self, x: &Tensor, dtype: DType) -> Result<Tensor>;

    /// `a + b`; activations of either type.
    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor>;

    /// `max(x, 0)`; NaN stays NaN. Activations of either type.
    fn relu(&self, x: &Tensor) -> Result<Tensor>;

    /// `dx = dy where y > 0, else 0`, from the result `y` of the forward pass. Activations of either type.
    fn relu_backward(&self, dy: &Tensor, y: &Tensor) -> Result<Tensor>;

    /// As [`Kernels::relu_backward`], with the result in the place of `dy`.
    fn relu_backward_in_place(&self, dy: &Tensor, y: &Tensor) -> Result<()>;

    /// `factor * x`
    fn scale(&self, factor: f32, x: &Tensor) -> Result<Tensor>;

    /// `y = factor * x + y`, in place. Activations of either type.
    fn axpy(&self, factor: f32, x: &Tensor, y: &Tensor) -> Result<()>;

    /// The sum of all elements, `[1]`.
    fn sum(&self, x: &Tensor) -> Result<Tensor>;

    /// The sum over rows of `x [N, C]`: `[C]`. A linear layer's bias gradient.
    fn sum_rows(&self, x: &Tensor) -> Result<Tensor>;

    /// A tensor of `shape` with every element equal to the device scalar `s`, `[1]`. The gradient of a sum.
    fn broadcast(&self, s: &Tensor, shape: &[usize]) -> Result<Tensor>;

    /// `a` above `b` along the first dimension; the other dimensions are equal.
    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor>;

    /// Rows `start .. start + count` of the first dimension, copied.
    fn slice(&self, x: &Tensor, start: usize, count: usize) -> Result<Tensor>;

    /// Sets `flag` (u32 `[1]`) to 1 where an element of `x` is not finite, in place; never clears it. `x` is an
    /// activation of either type.
    fn check_finite(&self, x: &Tensor, flag: &Tensor) -> Result<()>;

    // Matrix products.

    /// `C = op(A) op(B)`: `A` is `[M, K]` (`[K, M]` where transposed), `B` `[K, N]` (`[N, K]`), `C` `[M, N]`.
    fn gemm(&self, options: Gemm, a: &Tensor, b: &Tensor) -> Result<Tensor>;

    /// `y = x w^T + bias`: `x [N, I]`, `w [O, I]`, `bias [O]`, `y [N, O]`.
    fn linear(&self, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor>;

    // Convolution (cross-correlation, as torch): x [N, C, H, W], w [O, C, KH, KW], y [N, O, OH, OW] with
    // OH = (H + 2 padding - KH) / stride + 1. x, dx, y and dy are activations of either type; w and dw are f32, and
    // where activations are f16, w is rounded to f16 before it is multiplied.

    /// `y[n,o,i,j] = sum over c,u,v of x[n, c, i stride + u - padding, j stride + v - padding] w[o,c,u,v]`
    fn conv2d(&self, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Tensor>;

    /// The gradient of the input, of shape `x_shape`.
    fn conv2d_dx(
        &self,
        dy: &Tensor,
        w: &Tensor,
        x_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor>;

    /// The gradient of the weight, `[O, C, kernel, kernel]` with `kernel` from `w_shape`.
    fn conv2d_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor>;

    // Batch norm (Ioffe and Szegedy 2015) over N, H, W of each channel; gamma, beta and statistics are [C], f32, and so
    // are their gradients; everything [N, C, H, W] is an activation of either type.

    /// Mean and biased variance of each channel of `x`.
    fn batch_norm_statistics(&self, x: &Tensor) -> Result<BatchStatistics>;

    /// `y = (x - mean) / sqrt(variance + eps) gamma + beta`, then `activation`. NaN stays NaN.
    fn batch_norm(
        &self,
        x: &Tensor,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor>;

    /// Gradients where the statistics are those of `x` itself (training): with `xhat = (x - mean) / sqrt(variance +
    /// eps)` and `m = N H W`, `dbeta = sum dy`, `dgamma = sum dy xhat`, `dx = gamma / sqrt(variance + eps) (dy - dbeta
    /// / m - xhat dgamma / m)`. Where the result was `rectified` ([`Activation::Relu`]), `dy` counts only where `xhat
    /// gamma + beta > 0`, computed again from `x`.
    fn batch_norm_training_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients>;

    /// As [`Kernels::batch_norm_training_backward`], with dx in the place of `x`: the result's dx is `x`, changed. `dy`
    /// is another tensor.
    fn batch_norm_training_backward_in_place(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients>;

    /// Gradients where the statistics are constants (evaluation): `dx = dy gamma / sqrt(variance + eps)`; otherwise as
    /// [`Kernels::batch_norm_training_backward`].
    fn batch_norm_evaluation_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients>;

    /// `dx = dy gamma / sqrt(variance + eps)` alone, where the statistics are constants and `x` was not kept; where the
    /// rectified result `y` is given, 0 wherever `y` is not above 0.
    fn batch_norm_evaluation_dx(
        &self,
        dy: &Tensor,
        norm: &ChannelNorm,
        y: Option<&Tensor>,
    ) -> Result<Tensor>;

    /// [`Kernels::conv2d`], then [`Kernels::batch_norm`] with `norm` and `activation`, to the same bits: in one pass
    /// over the result where the device can.
    fn conv2d_batch_norm(
        &self,
        x: &Tensor,
        w: &Tensor,
        conv: Conv2d,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor>;

    /// Moves `running` towards `batch`, in place, unless the gate (u32 `[1]`) is set.
    fn update_running_statistics(
        &self,
        running: &BatchStatistics,
        batch: &BatchStatistics,
        update: RunningUpdate,
        gate: Option<&Tensor>,
    ) -> Result<()>;

    // Pooling.

    /// The maximum of each window; padding counts as minus infinity. NaN wins, as in torch. `x` and `y` are activations
    /// of either type, and so are their gradients.
    fn max_pool2d(&self, x: &Tensor, pool: Pool2d) -> Result<MaxPool>;

    /// `dx [N, C, H, W]` of shape `x_shape`: each `dy` added where its maximum stood.
    fn max_pool2d_backward(
        &self,
        dy: &Tensor,
        argmax: &Tensor,
        x_shape: [usize; 4],
        pool: Pool2d,
    ) -> Result<Tensor>;

    /// The mean of each plane: `[N, C, H, W]`, of either type, to `[N, C]`, f32.
    fn global_average_pool(&self, x: &Tensor) -> Result<Tensor>;

    /// `dx[n,c,i,j] = dy[n,c] / (H W)` with `dy` f32 and `dx` of the type of `x`.
    fn global_average_pool_backward(
        &self,
        dy: &Tensor,
        x_shape: [usize; 4],
        x_dtype: DType,
    ) -> Result<Tensor>;

    // Losses.

    /// `y = x / max(|x|, eps)` for each row of `x [N, D]`, as `torch.nn.functional.normalize`.
    fn l2_normalize(&self, x: &Tensor, eps: f32) -> Result<Normalized>;

    /// `dx = (dy - y (y . dy)) / norm` for each row; where the row was shorter than eps (so that |y| < 1, norm = eps),
    /// `dx = dy / norm`.
    fn l2_normalize_backward(&self, dy: &Tensor, forward: &Normalized, eps: f32) -> Result<Tensor>;

    /// The mean over rows of `log sum_j exp(logits[i,j]) - logits[i, label_i]`; labels are u32 `[N]`. A label that is
    /// not below the number of classes makes the loss NaN.
    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<RowLoss>;

    /// `dlogits = dloss (softmax - one_hot) / N`, with `dloss` `[1]`.
    fn softmax_cross_entropy_backward(
        &self,
        dloss: &Tensor,
        logits: &Tensor,
        labels: &Tensor,
        forward: &RowLoss,
    ) -> Result<Tensor>;

    /// NT-Xent (Chen et al. 2020, equation 1) over rows `z [2N, D]` of length 1, row i's positive being row `(i + N)
    /// mod 2N`: with `s_ij = z_i . z_j / temperature`, the mean over the 2N rows of `log sum_{j != i} exp(s_ij) -
    /// s_{i,pos}`. The 2N x 2N matrix is never stored: one streaming pass keeps each row's log-sum-exp.
    fn nt_xent(&self, z: &Tensor, temperature: f32) -> Result<RowLoss>;

    /// `dz_i = dloss / (2N temperature) (sum_{j != i} (p_ij + p_ji) z_j - 2 z_pos(i))` with `p_ij = exp(s_ij - lse_i)`,
    /// the similarities computed again.
    fn nt_xent_backward(
        &self,
        dloss: &Tensor,
        z: &Tensor,
        temperature: f32,
        forward: &RowLoss,
    ) -> Result<Tensor>;

    // Optimisers: `parameter` and the state change in place, unless the gate (u32 [1]) is set.

    /// `g = gradient / gradient_scale + weight_decay p; m = momentum m + g (m = g at first); p -= learning_rate
    /// (nesterov ? g + momentum m : m)`
    fn sgd_step(
        &self,
        options: SgdStep,
        parameter: &Tensor,
        gradient: &Tensor,
        momentum: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()>;

    /// `g = gradient / gradient_scale + weight_decay p; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    /// p -= learning_rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`
    fn adam_step(
        &self,
        options: AdamStep,
        parameter: &Tensor,
        gradient: &Tensor,
        first_moment: &Tensor,
        second_moment: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()>;

    // Images and views: f32 images in [0, 1], three channels unless said.

    /// Writes image `indices[b] - first` of `images` (u8 `[M, C, H, W]`) as `value / 255` into row `b` of `out`
    /// (f32 `[B, C, H, W]`), in place, for every b whose image lies in `first .. first + M`; other rows stay. A set
    /// that is larger than one buffer is stored as several tensors, each gathered in turn.
    fn gather_images(
        &self,
        images: &Tensor,
        first: usize,
        indices: &[u32],
        out: &Tensor,
    ) -> Result<()>;

    /// One crop a result image, resized to `size` x `size` as `torchvision.transforms.v2.functional.resized_crop` does
    /// on float tensors (bilinear, antialiased, half-pixel centres): `x [N, C, H, W]` to `[crops, C, size, size]`.
    fn resized_crop(&self, x: &Tensor, crops: &[ResizedCrop], size: usize) -> Result<Tensor>;

    /// The colour changes of each image in their order, each clamped to [0, 1], as torchvision's functions of these
    /// names: brightness `f x`; contrast `f x + (1 - f) mean(luma)`; saturation `f x + (1 - f) luma`; hue turned by `f`
    /// (in turns) through HSV; grayscale. Luma is 0.2989 R + 0.587 G + 0.114 B. `x [N, 3, H, W]`, one transform an
    /// image.
    fn color_transform(&self, x: &Tensor, transforms: &[ColorTransform]) -> Result<Tensor>;

    /// `(x - mean) / std` of each channel.
    fn normalize(&self, x: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor>;

    /// A crop of the image's own size out of the image padded by `padding` zeros on every side, one crop an image.
    fn padded_crop(&self, x: &Tensor, padding: usize, crops: &[PaddedCrop]) -> Result<Tensor>;

    /// Each square image turned counter-clockwise by its number of quarter turns (0 to 3), as `torch.rot90(x, k, (2,
    /// 3))`.
    fn rotate90(&self, x: &Tensor, quarter_turns: &[u32]) -> Result<Tensor>;

    /// `clamp(clamp(x + alpha sign(dx), clean - eps, clean + eps), low, high)` with sign(0) = 0: tensors of one shape.
    /// The result is within eps of `clean`, but for the rounding of `clean +- eps`, wherever `clean` lies in [low,
    /// high].
    fn attack_step(
        &self,
        step: AttackStep,
        x: &Tensor,
        dx: &Tensor,
        clean: &Tensor,
    ) -> Result<Tensor>;

    /// Numbers uniform in [low, high): element i is `low + (high - low) (philox(key, i) >> 8) 2^-24`, computed in f32.
    /// Philox4x32-10 (Salmon et al. 2011): key = the two halves of `seed` (low first), counter = (i / 4, 0, the two
    /// halves of `stream`), element i is word i mod 4.
    fn uniform(&self, key: NoiseKey, low: f32, high: f32, shape: &[usize]) -> Result<Tensor>;
}
