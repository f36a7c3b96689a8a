//! Every method of the vocabulary, handed on. A new one is three things: its name, the call, and its work.

use super::work::size;
use super::{ProfiledDevice, Work};
use crate::device::Readback;
use crate::device::kernels::*;
use crate::device::shapes::{self, Conv2d, Pool2d};
use crate::device::variants::VariantTable;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The work of a batch norm of `reads`, and what follows it.
fn normalization<'a>(
    mut reads: Vec<&'a Tensor>,
    norm: &'a ChannelNorm,
    activation: Activation<&'a Tensor>,
    y: &Tensor,
) -> Work {
    let BatchStatistics { mean, variance } = &norm.statistics;
    reads.extend([mean, variance, &norm.gamma, &norm.beta]);
    reads.extend(activation.shortcut());
    let per_element = match activation {
        Activation::Identity => 3,
        Activation::Relu => 4,
        Activation::AddRelu(_) => 5,
    };
    Work::each(per_element, &reads, y)
}

/// The work of a batch norm's gradients, at `per_element` operations.
fn batch_norm_backward(
    per_element: usize,
    [dy, x]: [&Tensor; 2],
    norm: &ChannelNorm,
    gradients: &BatchNormGradients,
) -> Work {
    let BatchStatistics { mean, variance } = &norm.statistics;
    let reads = [dy, x, mean, variance, &norm.gamma, &norm.beta];
    let writes = [&gradients.dx, &gradients.dgamma, &gradients.dbeta];
    Work::new(per_element * x.len(), &reads, &writes)
}

/// The work of a convolution of these shapes, which the call has checked.
fn convolution(x: &[usize], w: &[usize], conv: Conv2d, reads: [&Tensor; 2], y: &Tensor) -> Work {
    let four = |shape: &[usize]| <[usize; 4]>::try_from(shape).unwrap_or_default();
    match shapes::conv2d("conv2d", four(x), four(w), conv) {
        Ok(geometry) => Work::convolution(geometry, reads, y),
        Err(_) => Work::new(0, &reads, &[y]),
    }
}

impl Kernels for ProfiledDevice {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn memory(&self) -> MemoryUse {
        self.inner.memory()
    }

    fn in_host_memory(&self) -> bool {
        self.inner.in_host_memory()
    }

    fn variants(&self) -> Option<VariantTable> {
        self.inner.variants()
    }

    fn upload(&self, data: HostSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        self.call(
            "upload",
            |inner| inner.upload(data, shape),
            |y| Work::new(0, &[], &[y]),
        )
    }

    fn overwrite(&self, x: &Tensor, data: HostSlice<'_>) -> Result<()> {
        self.call(
            "overwrite",
            |inner| inner.overwrite(x, data),
            |_| Work::new(0, &[], &[x]),
        )
    }

    fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.call(
            "zeros",
            |inner| inner.zeros(shape, dtype),
            |y| Work::new(0, &[], &[y]),
        )
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        self.call("copy", |inner| inner.copy(x), |y| Work::new(0, &[x], &[y]))
    }

    fn download(&self, x: &Tensor) -> Result<Readback> {
        self.call(
            "download",
            |inner| inner.download(x),
            |_| Work::new(0, &[x], &[]),
        )
    }

    fn submit(&self) -> Result<()> {
        self.inner.submit()
    }

    fn cast(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        self.call(
            "cast",
            |inner| inner.cast(x, dtype),
            |y| Work::each(0, &[x], y),
        )
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.call(
            "add",
            |inner| inner.add(a, b),
            |y| Work::each(1, &[a, b], y),
        )
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        self.call("relu", |inner| inner.relu(x), |y| Work::each(1, &[x], y))
    }

    fn relu_backward(&self, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.call(
            "relu_backward",
            |inner| inner.relu_backward(dy, y),
            |dx| Work::each(1, &[dy, y], dx),
        )
    }

    fn relu_backward_in_place(&self, dy: &Tensor, y: &Tensor) -> Result<()> {
        self.call(
            "relu_backward_in_place",
            |inner| inner.relu_backward_in_place(dy, y),
            |_| Work::each(1, &[dy, y], dy),
        )
    }

    fn scale(&self, factor: f32, x: &Tensor) -> Result<Tensor> {
        self.call(
            "scale",
            |inner| inner.scale(factor, x),
            |y| Work::each(1, &[x], y),
        )
    }

    fn axpy(&self, factor: f32, x: &Tensor, y: &Tensor) -> Result<()> {
        self.call(
            "axpy",
            |inner| inner.axpy(factor, x, y),
            |_| Work::each(2, &[x, y], y),
        )
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        self.call(
            "sum",
            |inner| inner.sum(x),
            |y| Work::new(x.len(), &[x], &[y]),
        )
    }

    fn sum_rows(&self, x: &Tensor) -> Result<Tensor> {
        self.call(
            "sum_rows",
            |inner| inner.sum_rows(x),
            |y| Work::new(x.len(), &[x], &[y]),
        )
    }

    fn broadcast(&self, s: &Tensor, shape: &[usize]) -> Result<Tensor> {
        self.call(
            "broadcast",
            |inner| inner.broadcast(s, shape),
            |y| Work::each(0, &[s], y),
        )
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.call(
            "concat",
            |inner| inner.concat(a, b),
            |y| Work::each(0, &[a, b], y),
        )
    }

    fn slice(&self, x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
        self.call(
            "slice",
            |inner| inner.slice(x, start, count),
            |y| Work::each(0, &[], y).and_bytes(size(y)),
        )
    }

    fn check_finite(&self, x: &Tensor, flag: &Tensor) -> Result<()> {
        self.call(
            "check_finite",
            |inner| inner.check_finite(x, flag),
            |_| Work::new(0, &[x], &[flag]),
        )
    }

    fn gemm(&self, options: Gemm, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.call(
            "gemm",
            |inner| inner.gemm(options, a, b),
            |y| {
                // The sum's index is the other one of a.
                let terms = a.len() / y.shape()[0].max(1);
                Work::each(2 * terms, &[a, b], y)
            },
        )
    }

    fn linear(&self, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.call(
            "linear",
            |inner| inner.linear(x, w, bias),
            |y| {
                // Products, sums, and the bias.
                let inputs = w.shape()[1];
                Work::each(2 * inputs + 1, &[x, w, bias], y)
            },
        )
    }

    fn conv2d(&self, x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Tensor> {
        self.call(
            "conv2d",
            |inner| inner.conv2d(x, w, conv),
            |y| convolution(x.shape(), w.shape(), conv, [x, w], y),
        )
    }

    fn conv2d_dx(
        &self,
        dy: &Tensor,
        w: &Tensor,
        x_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor> {
        self.call(
            "conv2d_dx",
            |inner| inner.conv2d_dx(dy, w, x_shape, conv),
            |dx| convolution(&x_shape, w.shape(), conv, [dy, w], dx),
        )
    }

    fn conv2d_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w_shape: [usize; 4],
        conv: Conv2d,
    ) -> Result<Tensor> {
        self.call(
            "conv2d_dw",
            |inner| inner.conv2d_dw(dy, x, w_shape, conv),
            |dw| convolution(x.shape(), &w_shape, conv, [dy, x], dw),
        )
    }

    fn batch_norm_statistics(&self, x: &Tensor) -> Result<BatchStatistics> {
        self.call(
            "batch_norm_statistics",
            |inner| inner.batch_norm_statistics(x),
            |y| Work::new(4 * x.len(), &[x], &[&y.mean, &y.variance]),
        )
    }

    fn batch_norm(
        &self,
        x: &Tensor,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor> {
        self.call(
            "batch_norm",
            |inner| inner.batch_norm(x, norm, activation),
            |y| normalization(vec![x], norm, activation, y),
        )
    }

    fn batch_norm_training_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        self.call(
            "batch_norm_training_backward",
            |inner| inner.batch_norm_training_backward(dy, x, norm, rectified),
            |d| batch_norm_backward(9, [dy, x], norm, d),
        )
    }

    fn batch_norm_training_backward_in_place(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        self.call(
            "batch_norm_training_backward_in_place",
            |inner| inner.batch_norm_training_backward_in_place(dy, x, norm, rectified),
            |d| batch_norm_backward(9, [dy, x], norm, d),
        )
    }

    fn batch_norm_evaluation_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        norm: &ChannelNorm,
        rectified: bool,
    ) -> Result<BatchNormGradients> {
        self.call(
            "batch_norm_evaluation_backward",
            |inner| inner.batch_norm_evaluation_backward(dy, x, norm, rectified),
            |d| batch_norm_backward(6, [dy, x], norm, d),
        )
    }

    fn batch_norm_evaluation_dx(
        &self,
        dy: &Tensor,
        norm: &ChannelNorm,
        y: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.call(
            "batch_norm_evaluation_dx",
            |inner| inner.batch_norm_evaluation_dx(dy, norm, y),
            |dx| {
                let mut reads = vec![dy, &norm.statistics.variance, &norm.gamma];
                reads.extend(y);
                Work::each(1, &reads, dx)
            },
        )
    }

    fn conv2d_batch_norm(
        &self,
        x: &Tensor,
        w: &Tensor,
        conv: Conv2d,
        norm: &ChannelNorm,
        activation: Activation<&Tensor>,
    ) -> Result<Tensor> {
        self.call(
            "conv2d_batch_norm",
            |inner| inner.conv2d_batch_norm(x, w, conv, norm, activation),
            |y| {
                let product = convolution(x.shape(), w.shape(), conv, [x, w], y);
                let after = normalization(vec![x, w], norm, activation, y);
                Work {
                    flops: product.flops + after.flops,
                    variant: product.variant,
                    ..after
                }
            },
        )
    }

    fn update_running_statistics(
        &self,
        running: &BatchStatistics,
        batch: &BatchStatistics,
        update: RunningUpdate,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        self.call(
            "update_running_statistics",
            |inner| inner.update_running_statistics(running, batch, update, gate),
            |_| {
                let writes = [&running.mean, &running.variance];
                let reads = [writes[0], writes[1], &batch.mean, &batch.variance];
                Work::new(7 * running.mean.len(), &reads, &writes)
            },
        )
    }

    fn max_pool2d(&self, x: &Tensor, pool: Pool2d) -> Result<MaxPool> {
        self.call(
            "max_pool2d",
            |inner| inner.max_pool2d(x, pool),
            |p| {
                Work::new(
                    pool.kernel * pool.kernel * p.y.len(),
                    &[x],
                    &[&p.y, &p.argmax],
                )
            },
        )
    }

    fn max_pool2d_backward(
        &self,
        dy: &Tensor,
        argmax: &Tensor,
        x_shape: [usize; 4],
        pool: Pool2d,
    ) -> Result<Tensor> {
        self.call(
            "max_pool2d_backward",
            |inner| inner.max_pool2d_backward(dy, argmax, x_shape, pool),
            |dx| Work::new(dy.len(), &[dy, argmax], &[dx]),
        )
    }

    fn global_average_pool(&self, x: &Tensor) -> Result<Tensor> {
        self.call(
            "global_average_pool",
            |inner| inner.global_average_pool(x),
            |y| Work::new(x.len(), &[x], &[y]),
        )
    }

    fn global_average_pool_backward(
        &self,
        dy: &Tensor,
        x_shape: [usize; 4],
        x_dtype: DType,
    ) -> Result<Tensor> {
        self.call(
            "global_average_pool_backward",
            |inner| inner.global_average_pool_backward(dy, x_shape, x_dtype),
            |dx| Work::new(dy.len(), &[dy], &[dx]),
        )
    }

    fn l2_normalize(&self, x: &Tensor, eps: f32) -> Result<Normalized> {
        self.call(
            "l2_normalize",
            |inner| inner.l2_normalize(x, eps),
            |y| Work::new(3 * x.len(), &[x], &[&y.y, &y.norm]),
        )
    }

    fn l2_normalize_backward(&self, dy: &Tensor, forward: &Normalized, eps: f32) -> Result<Tensor> {
        self.call(
            "l2_normalize_backward",
            |inner| inner.l2_normalize_backward(dy, forward, eps),
            |dx| Work::each(5, &[dy, &forward.y, &forward.norm], dx),
        )
    }

    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<RowLoss> {
        self.call(
            "softmax_cross_entropy",
            |inner| inner.softmax_cross_entropy(logits, labels),
            |y| {
                let writes = [&y.loss, &y.log_sum_exp];
                Work::new(4 * logits.len(), &[logits, labels], &writes)
            },
        )
    }

    fn softmax_cross_entropy_backward(
        &self,
        dloss: &Tensor,
        logits: &Tensor,
        labels: &Tensor,
        forward: &RowLoss,
    ) -> Result<Tensor> {
        self.call(
            "softmax_cross_entropy_backward",
            |inner| inner.softmax_cross_entropy_backward(dloss, logits, labels, forward),
            |d| Work::each(3, &[dloss, logits, labels, &forward.log_sum_exp], d),
        )
    }

    fn nt_xent(&self, z: &Tensor, temperature: f32) -> Result<RowLoss> {
        self.call(
            "nt_xent",
            |inner| inner.nt_xent(z, temperature),
            |y| {
                // Of each pair: a product, the temperature, an exponential and its sum.
                let rows = z.shape()[0];
                let flops = rows * rows * (2 * z.shape()[1] + 3);
                Work::new(flops, &[z], &[&y.loss, &y.log_sum_exp])
            },
        )
    }

    fn nt_xent_backward(
        &self,
        dloss: &Tensor,
        z: &Tensor,
        temperature: f32,
        forward: &RowLoss,
    ) -> Result<Tensor> {
        self.call(
            "nt_xent_backward",
            |inner| inner.nt_xent_backward(dloss, z, temperature, forward),
            |dz| {
                // Of each pair: the similarity again, two exponentials, and a multiple of z added.
                let rows = z.shape()[0];
                let flops = rows * rows * (4 * z.shape()[1] + 6);
                Work::new(flops, &[dloss, z, &forward.log_sum_exp], &[dz])
            },
        )
    }

    fn sgd_step(
        &self,
        options: SgdStep,
        parameter: &Tensor,
        gradient: &Tensor,
        momentum: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        self.call(
            "sgd_step",
            |inner| inner.sgd_step(options, parameter, gradient, momentum, gate),
            |_| {
                let flops = if options.nesterov { 8 } else { 6 };
                let writes = [parameter, momentum];
                let reads = [gradient, parameter, momentum];
                Work::new(flops * parameter.len(), &reads, &writes)
            },
        )
    }

    fn adam_step(
        &self,
        options: AdamStep,
        parameter: &Tensor,
        gradient: &Tensor,
        first_moment: &Tensor,
        second_moment: &Tensor,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        self.call(
            "adam_step",
            |inner| {
                inner.adam_step(
                    options,
                    parameter,
                    gradient,
                    first_moment,
                    second_moment,
                    gate,
                )
            },
            |_| {
                let writes = [parameter, first_moment, second_moment];
                let reads = [gradient, parameter, first_moment, second_moment];
                Work::new(15 * parameter.len(), &reads, &writes)
            },
        )
    }

    fn gather_images(
        &self,
        images: &Tensor,
        first: usize,
        indices: &[u32],
        out: &Tensor,
    ) -> Result<()> {
        self.call(
            "gather_images",
            |inner| inner.gather_images(images, first, indices, out),
            |_| Work::each(1, &[], out).and_bytes(out.len() + 4 * indices.len()),
        )
    }

    fn resized_crop(&self, x: &Tensor, crops: &[ResizedCrop], size: usize) -> Result<Tensor> {
        self.call(
            "resized_crop",
            |inner| inner.resized_crop(x, crops, size),
            |y| Work::each(0, &[x], y).and_bytes(std::mem::size_of_val(crops)),
        )
    }

    fn color_transform(&self, x: &Tensor, transforms: &[ColorTransform]) -> Result<Tensor> {
        self.call(
            "color_transform",
            |inner| inner.color_transform(x, transforms),
            |y| Work::each(0, &[x], y).and_bytes(std::mem::size_of_val(transforms)),
        )
    }

    fn normalize(&self, x: &Tensor, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
        self.call(
            "normalize",
            |inner| inner.normalize(x, mean, std),
            |y| Work::each(2, &[x], y),
        )
    }

    fn padded_crop(&self, x: &Tensor, padding: usize, crops: &[PaddedCrop]) -> Result<Tensor> {
        self.call(
            "padded_crop",
            |inner| inner.padded_crop(x, padding, crops),
            |y| Work::each(0, &[x], y).and_bytes(std::mem::size_of_val(crops)),
        )
    }

    fn rotate90(&self, x: &Tensor, quarter_turns: &[u32]) -> Result<Tensor> {
        self.call(
            "rotate90",
            |inner| inner.rotate90(x, quarter_turns),
            |y| Work::each(0, &[x], y).and_bytes(std::mem::size_of_val(quarter_turns)),
        )
    }

    fn attack_step(
        &self,
        step: AttackStep,
        x: &Tensor,
        dx: &Tensor,
        clean: &Tensor,
    ) -> Result<Tensor> {
        self.call(
            "attack_step",
            |inner| inner.attack_step(step, x, dx, clean),
            |y| Work::each(8, &[x, dx, clean], y),
        )
    }

    fn uniform(&self, key: NoiseKey, low: f32, high: f32, shape: &[usize]) -> Result<Tensor> {
        self.call(
            "uniform",
            |inner| inner.uniform(key, low, high, shape),
            |y| Work::each(2, &[], y),
        )
    }
}
