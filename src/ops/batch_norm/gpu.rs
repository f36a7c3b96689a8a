//! Launches of `shaders/batch_norm.wgsl`. A row of a launch is a *split*, which is some images of
//! the batch. One workgroup per channel computes the sums of a split. If one image is larger than a
//! binding, a row is one plane instead.

use std::ops::Range;

use super::{
    Activation, BatchNorm, BatchNormBackward, BatchNormDx, BatchNormGradients, BatchNormStatistics,
    BatchNormTraining, BatchStatistics, Normalized, Statistics, UpdateAverages,
    UpdateRunningStatistics,
};
use crate::device::gpu::kernels::batch_norm_elements::{self as elements, Params};
use crate::device::gpu::kernels::batch_norm_vectors as vectors;
use crate::device::gpu::{Grid, Kernel, Launch, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::ops::optimizer::gate_or_open;
use crate::tensor::Tensor;

/// Elements of one channel per workgroup. More would leave parts of the device without a workgroup,
/// and fewer would not amortise the launch of a workgroup.
const SPLIT: usize = 8 * 1024;

/// The kernel for planes of any size, and the kernel for planes whose size is a multiple of 4.
type Kernels = [&'static Kernel; 2];

/// A batch that is divided into splits.
struct Batch<'a> {
    gpu: &'a Gpu,
    sizes: [usize; 4],
    images_per_split: usize,
    /// Whether a row is one plane.
    by_plane: bool,
    /// Pixels per load.
    width: usize,
    params: Params,
}

impl<'a> Batch<'a> {
    fn new(gpu: &'a Gpu, sizes: [usize; 4], eps: f32) -> Self {
        let [n, c, h, w] = sizes;
        let plane = h * w;
        let width = if plane.is_multiple_of(4) { 4 } else { 1 };
        let fitting = gpu.rows_at_once(c * plane);
        let images_per_split = SPLIT.div_ceil(plane).min(n).min(fitting.max(1));
        let lanes = (plane / width).next_power_of_two().min(256);
        let params = Params {
            plane_len: plane / width,
            lanes_log2: lanes.ilog2() as usize,
            all_channels: c,
            images_per_split,
            splits: n.div_ceil(images_per_split),
            count: (n * plane) as f32,
            eps,
            ..Params::default()
        };
        Batch {
            gpu,
            sizes,
            images_per_split,
            by_plane: fitting == 0,
            width,
            params,
        }
    }

    /// Elements per row.
    fn row(&self) -> usize {
        let [_, c, h, w] = self.sizes;
        if self.by_plane {
            h * w
        } else {
            self.images_per_split * c * h * w
        }
    }

    /// The rows of each launch. If a row is one plane, each launch covers one image.
    fn rows(&self) -> Vec<Range<usize>> {
        let [n, c, ..] = self.sizes;
        let (launches, rows) = if self.by_plane {
            (n, c)
        } else {
            (1, self.params.splits)
        };
        (0..launches).map(|i| i * rows..(i + 1) * rows).collect()
    }

    /// Allocates partial sums: four numbers per split and channel.
    fn partials(&self) -> Result<Tensor> {
        self.gpu.floats(&[self.params.splits, self.sizes[1], 4])
    }

    /// Records the kernel that fits the planes, over the whole batch. `name` is the shader's
    /// variable for `x`.
    fn run<'b>(
        &self,
        [elements, vectors]: Kernels,
        (name, x): (&'static str, &'b Tensor),
        bind: impl Fn(Launch<'b>) -> Launch<'b>,
    ) -> Result<()>
    where
        'a: 'b,
    {
        let kernel = if self.width == 4 { vectors } else { elements };
        for rows in self.rows() {
            let launch = self.gpu.launch(kernel).rows(rows).read(name, x, self.row());
            bind(launch).run(|slice| self.params(slice, name, x))?;
        }
        Ok(())
    }

    fn params(&self, slice: &Slice<'_>, name: &str, x: &Tensor) -> (Params, Grid) {
        let [_, c, h, w] = self.sizes;
        let (images, channels, first_channel, first_split) = if self.by_plane {
            (1, slice.rows, slice.start % c, slice.start / c)
        } else {
            (
                slice.elements(x, self.row()) / (c * h * w),
                c,
                0,
                slice.start,
            )
        };
        let params = Params {
            images,
            channels,
            first_channel,
            first_split,
            offset: slice.offset(name) / self.width,
            ..self.params
        };
        let splits = images.div_ceil(self.images_per_split);
        (params, Grid::Workgroups(splits * channels))
    }

    /// Computes the partial sums of mean and variance.
    fn partial_statistics(&self, x: &Tensor) -> Result<Tensor> {
        let partials = self.partials()?;
        let kernels = [
            &elements::STATISTICS_OF_SPLIT,
            &vectors::STATISTICS_OF_SPLIT,
        ];
        self.run(kernels, ("x", x), |launch| {
            launch.write("partials", &partials, ..)
        })?;
        Ok(partials)
    }
}

impl RunOn<Gpu> for BatchNormStatistics<'_> {
    fn run(&self, gpu: &Gpu, sizes: [usize; 4]) -> Result<BatchStatistics> {
        let batch = Batch::new(gpu, sizes, 0.0);
        let partials = batch.partial_statistics(self.x)?;
        let c = sizes[1];
        let (mean, variance) = (gpu.floats(&[c])?, gpu.floats(&[c])?);
        gpu.launch(&elements::MERGE_STATISTICS)
            .read("partials", &partials, ..)
            .write("new_mean", &mean, ..)
            .write("new_variance", &variance, ..)
            .run(|_| (batch.params, Grid::Workgroups(c)))?;
        Ok(BatchStatistics { mean, variance })
    }
}

impl RunOn<Gpu> for BatchNormTraining<'_> {
    fn run(&self, gpu: &Gpu, sizes: [usize; 4]) -> Result<Normalized> {
        let y = gpu.allocate(self.x.shape(), self.x.dtype())?;
        let mut batch = Batch::new(gpu, sizes, self.eps);
        batch.params.rectified = usize::from(matches!(self.activation, Activation::Relu));
        let partials = batch.partial_statistics(self.x)?;
        let c = &sizes[1..2];
        let (mean, variance) = (gpu.result(1, c)?, gpu.result(2, c)?);
        let kernels = match self.activation {
            Activation::AddRelu(_) => [
                &elements::NORMALIZE_BATCH_ADD_RELU,
                &vectors::NORMALIZE_BATCH_ADD_RELU,
            ],
            _ => [&elements::NORMALIZE_BATCH, &vectors::NORMALIZE_BATCH],
        };
        batch.run(kernels, ("x", self.x), |mut launch| {
            if let Some(shortcut) = self.activation.shortcut() {
                launch = launch.read("shortcut", shortcut, batch.row());
            }
            launch
                .read("partials", &partials, ..)
                .read("gamma", self.gamma, ..)
                .read("beta", self.beta, ..)
                .write("new_mean", &mean, ..)
                .write("new_variance", &variance, ..)
                .write("y", &y, batch.row())
        })?;
        let statistics = BatchStatistics { mean, variance };
        Ok(Normalized { y, statistics })
    }
}

impl RunOn<Gpu> for BatchNorm<'_> {
    fn run(&self, gpu: &Gpu, sizes: [usize; 4]) -> Result<Tensor> {
        let y = gpu.allocate(self.x.shape(), self.x.dtype())?;
        let mut batch = Batch::new(gpu, sizes, self.norm.eps);
        batch.params.rectified = usize::from(matches!(self.activation, Activation::Relu));
        let BatchStatistics { mean, variance } = &self.norm.statistics;
        let kernels = match self.activation {
            Activation::AddRelu(_) => [&elements::NORMALIZE_ADD_RELU, &vectors::NORMALIZE_ADD_RELU],
            _ => [&elements::NORMALIZE, &vectors::NORMALIZE],
        };
        batch.run(kernels, ("x", self.x), |mut launch| {
            if let Some(shortcut) = self.activation.shortcut() {
                launch = launch.read("shortcut", shortcut, batch.row());
            }
            launch
                .read("mean", mean, ..)
                .read("variance", variance, ..)
                .read("gamma", &self.norm.gamma, ..)
                .read("beta", &self.norm.beta, ..)
                .write("y", &y, batch.row())
        })?;
        Ok(y)
    }
}

impl BatchNormBackward<'_> {
    /// Computes the partial sums of `dgamma` and `dbeta`. Returns them and the gradient of the
    /// shortcut.
    fn partial_sums(&self, batch: &Batch<'_>) -> Result<(Tensor, Option<Tensor>)> {
        let (gpu, row) = (batch.gpu, batch.row());
        let partials = batch.partials()?;
        let BatchStatistics { mean, variance } = &self.norm.statistics;
        let (gamma, beta) = (&self.norm.gamma, &self.norm.beta);
        let Activation::AddRelu(result) = self.activation else {
            let kernels = [
                &elements::GRADIENT_SUMS_OF_SPLIT,
                &vectors::GRADIENT_SUMS_OF_SPLIT,
            ];
            batch.run(kernels, ("x", &self.x), |launch| {
                launch
                    .read("dy", &self.dy, row)
                    .read("mean", mean, ..)
                    .read("variance", variance, ..)
                    .read("gamma", gamma, ..)
                    .read("beta", beta, ..)
                    .write("partials", &partials, ..)
            })?;
            return Ok((partials, None));
        };
        let in_place = self.dy.is_unshared();
        let (kernels, passed) = if in_place {
            let kernels = [
                &elements::GRADIENT_SUMS_ADD_RELU_IN_PLACE,
                &vectors::GRADIENT_SUMS_ADD_RELU_IN_PLACE,
            ];
            (kernels, self.dy.clone())
        } else {
            let kernels = [
                &elements::GRADIENT_SUMS_ADD_RELU,
                &vectors::GRADIENT_SUMS_ADD_RELU,
            ];
            (kernels, gpu.allocate(self.dy.shape(), self.dy.dtype())?)
        };
        batch.run(kernels, ("x", &self.x), |mut launch| {
            if !in_place {
                launch = launch.read("dy", &self.dy, row);
            }
            launch
                .read("result", result, row)
                .read("mean", mean, ..)
                .read("variance", variance, ..)
                .read("gamma", gamma, ..)
                .write("y", &passed, row)
                .write("partials", &partials, ..)
        })?;
        Ok((partials, Some(passed)))
    }
}

impl RunOn<Gpu> for BatchNormBackward<'_> {
    fn run(&self, gpu: &Gpu, sizes: [usize; 4]) -> Result<BatchNormGradients> {
        let mut batch = Batch::new(gpu, sizes, self.norm.eps);
        batch.params.rectified = usize::from(matches!(self.activation, Activation::Relu));
        batch.params.training = usize::from(self.statistics == Statistics::OfTheBatch);
        let row = batch.row();
        let (partials, dshortcut) = self.partial_sums(&batch)?;
        let dy = dshortcut.as_ref().unwrap_or(&self.dy);
        let (dgamma, dbeta) = (gpu.result(1, &sizes[1..2])?, gpu.result(2, &sizes[1..2])?);
        let in_place = self.x.is_unshared();
        let (kernels, dx) = if in_place {
            let kernels = [
                &elements::INPUT_GRADIENT_IN_PLACE,
                &vectors::INPUT_GRADIENT_IN_PLACE,
            ];
            (kernels, self.x.clone())
        } else {
            let kernels = [&elements::INPUT_GRADIENT, &vectors::INPUT_GRADIENT];
            (kernels, gpu.allocate(self.x.shape(), self.x.dtype())?)
        };
        batch.run(kernels, ("dy", dy), |mut launch| {
            if !in_place {
                launch = launch.read("x", &self.x, row);
            }
            launch
                .read("variance", &self.norm.statistics.variance, ..)
                .read("beta", &self.norm.beta, ..)
                .read("partials", &partials, ..)
                .write("dgamma", &dgamma, ..)
                .write("dbeta", &dbeta, ..)
                .write("y", &dx, row)
        })?;
        Ok(BatchNormGradients {
            dx,
            dgamma,
            dbeta,
            dshortcut,
        })
    }
}

impl RunOn<Gpu> for BatchNormDx<'_> {
    fn run(&self, gpu: &Gpu, sizes: [usize; 4]) -> Result<Tensor> {
        let dx = gpu.allocate(self.dy.shape(), self.dy.dtype())?;
        let mut batch = Batch::new(gpu, sizes, self.norm.eps);
        batch.params.rectified = usize::from(self.y.is_some());
        let kernels = [&elements::EVALUATION_DX, &vectors::EVALUATION_DX];
        batch.run(kernels, ("dy", self.dy), |launch| {
            launch
                // Without y, the kernel ignores this binding.
                .read("result", self.y.unwrap_or(self.dy), batch.row())
                .read("variance", &self.norm.statistics.variance, ..)
                .read("gamma", &self.norm.gamma, ..)
                .write("y", &dx, batch.row())
        })?;
        Ok(dx)
    }
}

impl RunOn<Gpu> for UpdateRunningStatistics<'_> {
    fn run(&self, gpu: &Gpu, channels: usize) -> Result<()> {
        let (running, batch) = (self.running, self.batch);
        let params = Params {
            all_channels: channels,
            momentum: self.momentum,
            unbiased: self.count as f32 / (self.count - 1) as f32,
            ..Params::default()
        };
        let gate = gate_or_open(gpu, self.gate)?;
        gpu.launch(&elements::UPDATE_RUNNING)
            .read("mean", &batch.mean, ..)
            .read("variance", &batch.variance, ..)
            .read("gate", &gate, ..)
            .write("running_mean", &running.mean, ..)
            .write("running_variance", &running.variance, ..)
            .run(|_| (params, Grid::Invocations(channels)))
    }
}

impl RunOn<Gpu> for UpdateAverages<'_> {
    fn run(&self, gpu: &Gpu, (): ()) -> Result<()> {
        let gate = gate_or_open(gpu, self.gate)?;
        gpu.launch(&elements::UPDATE_AVERAGES)
            .elements(self.averages.len())
            .read("values", self.values, 1)
            .read("factors", self.factors, 1)
            .read("gate", &gate, ..)
            .write("averages", self.averages, 1)
            .run(|slice| {
                let params = Params {
                    all_channels: slice.rows,
                    momentum: self.momentum,
                    ..Params::default()
                };
                (params, Grid::Invocations(slice.rows))
            })
    }
}
