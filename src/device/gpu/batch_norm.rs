//! Launches of `shaders/batch_norm.wgsl`.

use super::shaders::batch_norm_elements::{self as elements, Params};
use super::shaders::batch_norm_vectors as vectors;
use super::{EntryPoint, GpuDevice, Part};
use crate::device::kernels::{
    Activation, BatchNormGradients, BatchStatistics, ChannelNorm, Kernels, RunningUpdate,
    Statistics,
};
use crate::device::shapes;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements of one channel that a workgroup takes: enough to hide its start, few enough to fill a device.
const SPLIT: usize = 8 * 1024;

/// An entry point for planes of any size, and the one for planes of whole vec4s.
type Entries = [&'static EntryPoint; 2];

/// A contiguous part of a batch that fits a binding: whole images, or some channels of one image.
struct Slab {
    /// Its first element in the batch, and how many it has.
    start: usize,
    len: usize,
    params: Params,
}

/// A batch in parts.
struct Batch {
    operation: &'static str,
    channels: usize,
    slabs: Vec<Slab>,
    /// Pixels that a lane takes at a time.
    width: usize,
    /// What holds for the whole batch.
    params: Params,
}

impl Batch {
    fn new(
        device: &GpuDevice,
        operation: &'static str,
        [n, c, h, w]: [usize; 4],
        eps: f32,
    ) -> Result<Batch> {
        let plane = h * w;
        let width = if plane.is_multiple_of(4) { 4 } else { 1 };
        let lanes = (plane / width).next_power_of_two().min(256);
        let images_per_split = SPLIT.div_ceil(plane);
        let mut params = Params {
            plane_len: (plane / width) as u32,
            lanes_log2: lanes.ilog2(),
            all_channels: c as u32,
            images_per_split: images_per_split as u32,
            count: (n * plane) as f32,
            eps,
            ..bytemuck::Zeroable::zeroed()
        };
        // Ranges of images and of channels: one of the two lists has a single range.
        let limit = (device.context.binding_limit / 4) as usize;
        let image_fits = n * c * plane <= limit || c * plane + 63 <= limit;
        let (images, channels) = if image_fits {
            let images = device.row_ranges(operation, n, &[c * plane], usize::MAX)?;
            (images, vec![(0, c)])
        } else {
            let channels = device.row_ranges(operation, c, &[plane], usize::MAX)?;
            ((0..n).map(|image| (image, 1)).collect(), channels)
        };
        let mut slabs = Vec::with_capacity(images.len() * channels.len());
        for (image, images) in images {
            for &(channel, channels) in &channels {
                slabs.push(Slab {
                    start: (image * c + channel) * plane,
                    len: images * channels * plane,
                    params: Params {
                        channels: channels as u32,
                        first_channel: channel as u32,
                        images: images as u32,
                        first_split: params.splits,
                        ..params
                    },
                });
            }
            params.splits += images.div_ceil(images_per_split) as u32;
        }
        Ok(Batch {
            operation,
            channels: c,
            slabs,
            width,
            params,
        })
    }

    /// Says whether the forward pass's result is rectified.
    fn rectify(&mut self, rectified: bool) {
        for slab in &mut self.slabs {
            slab.params.rectified = u32::from(rectified);
        }
    }

    /// Room for four numbers of each split and channel.
    fn partials(&self, device: &GpuDevice) -> Result<Tensor> {
        device.floats(&[self.params.splits as usize, self.channels, 4])
    }

    /// Records one of `entries` once for each slab, with `inputs` and, after `middle`, `output` cut to it.
    fn launch(
        &self,
        device: &GpuDevice,
        [elements, vectors]: Entries,
        inputs: &[&Tensor],
        middle: &[&Tensor],
        output: Option<&Tensor>,
    ) -> Result<()> {
        let cut = |x: &Tensor, slab: &Slab| -> Result<(Part, usize)> {
            device.part_from(self.operation, "x", x, slab.start, slab.len)
        };
        let entry = if self.width == 4 { vectors } else { elements };
        for slab in &self.slabs {
            let mut params = slab.params;
            let mut parts = Vec::with_capacity(7);
            for x in inputs.iter().copied() {
                let (part, offset) = cut(x, slab)?;
                params.offset = (offset / self.width) as u32;
                parts.push(part);
            }
            for x in middle {
                parts.push(device.whole(self.operation, "a channel's numbers", x)?);
            }
            if let Some(y) = output {
                parts.push(cut(y, slab)?.0);
            }
            let workgroups = params.images.div_ceil(params.images_per_split) * params.channels;
            let dtype = inputs[0].dtype();
            device.launch_for(dtype, entry, params, &parts, workgroups as usize)?;
        }
        Ok(())
    }

    /// Records `entry` with an invocation a channel.
    fn launch_channels(
        &self,
        device: &GpuDevice,
        entry: &'static EntryPoint,
        params: Params,
        tensors: &[&Tensor],
    ) -> Result<()> {
        let parts = tensors
            .iter()
            .map(|x| device.whole(self.operation, "a channel's numbers", x))
            .collect::<Result<Vec<_>>>()?;
        device.launch(entry, params, &parts, self.channels.div_ceil(256))
    }
}

pub(super) fn batch_norm_statistics(device: &GpuDevice, x: &Tensor) -> Result<BatchStatistics> {
    let operation = "batch_norm_statistics";
    let shape = shapes::batch_norm_input(operation, "x", x)?;
    let batch = Batch::new(device, operation, shape, 0.0)?;
    let partials = batch.partials(device)?;
    batch.launch(
        device,
        [
            &elements::STATISTICS_OF_SPLIT,
            &vectors::STATISTICS_OF_SPLIT,
        ],
        &[x],
        &[&partials],
        None,
    )?;
    let mean = device.floats(&[batch.channels])?;
    let variance = device.floats(&[batch.channels])?;
    let tensors = [&partials, &mean, &variance];
    batch.launch_channels(device, &elements::MERGE_STATISTICS, batch.params, &tensors)?;
    Ok(BatchStatistics { mean, variance })
}

pub(super) fn batch_norm(
    device: &GpuDevice,
    x: &Tensor,
    norm: &ChannelNorm,
    activation: Activation<&Tensor>,
) -> Result<Tensor> {
    let operation = "batch_norm";
    let shape = shapes::batch_norm(operation, x, norm, activation)?;
    let y = device.allocate(x.shape(), x.dtype())?;
    let ChannelNorm {
        statistics: BatchStatistics { mean, variance },
        gamma,
        beta,
        eps,
    } = norm;
    let of_channels = [mean, variance, gamma, beta];
    let mut batch = Batch::new(device, operation, shape, *eps)?;
    match activation {
        Activation::AddRelu(shortcut) => {
            let entries = [&elements::NORMALIZE_ADD_RELU, &vectors::NORMALIZE_ADD_RELU];
            batch.launch(device, entries, &[x, shortcut], &of_channels, Some(&y))?;
        }
        Activation::Identity | Activation::Relu => {
            batch.rectify(matches!(activation, Activation::Relu));
            let entries = [&elements::NORMALIZE, &vectors::NORMALIZE];
            batch.launch(device, entries, &[x], &of_channels, Some(&y))?;
        }
    }
    Ok(y)
}

/// How a batch norm goes back: the sums of every channel, of which dx is made.
struct Backward {
    batch: Batch,
    /// Of a channel, as the shader has them.
    coefficients: Tensor,
    dgamma: Tensor,
    dbeta: Tensor,
}

impl Backward {
    fn new(
        device: &GpuDevice,
        operation: &'static str,
        [dy, x]: [&Tensor; 2],
        norm: &ChannelNorm,
        rectified: bool,
        kind: Statistics,
    ) -> Result<Self> {
        let shape = shapes::batch_norm(operation, x, norm, Activation::Identity)?;
        shapes::same(operation, ("x", x), ("dy", dy))?;
        let mut batch = Batch::new(device, operation, shape, norm.eps)?;
        batch.rectify(rectified);
        let partials = batch.partials(device)?;
        let BatchStatistics { mean, variance } = &norm.statistics;
        batch.launch(
            device,
            [
                &elements::GRADIENT_SUMS_OF_SPLIT,
                &vectors::GRADIENT_SUMS_OF_SPLIT,
            ],
            &[x, dy],
            &[mean, variance, &norm.gamma, &norm.beta, &partials],
            None,
        )?;
        let coefficients = device.floats(&[batch.channels, 4])?;
        let dbeta = device.floats(&[batch.channels])?;
        let dgamma = device.floats(&[batch.channels])?;
        let params = Params {
            training: u32::from(kind == Statistics::OfTheBatch),
            ..batch.params
        };
        let tensors = [
            mean,
            variance,
            &norm.gamma,
            &partials,
            &coefficients,
            &dbeta,
            &dgamma,
        ];
        batch.launch_channels(device, &elements::MERGE_GRADIENT_SUMS, params, &tensors)?;
        Ok(Backward {
            batch,
            coefficients,
            dgamma,
            dbeta,
        })
    }

    /// Records `entries` of `inputs`, which make `dx`.
    fn launch(
        self,
        device: &GpuDevice,
        entries: Entries,
        inputs: &[&Tensor],
        norm: &ChannelNorm,
        dx: Tensor,
    ) -> Result<BatchNormGradients> {
        let of_channels = [&norm.beta, &self.coefficients];
        self.batch
            .launch(device, entries, inputs, &of_channels, Some(&dx))?;
        Ok(BatchNormGradients {
            dx,
            dgamma: self.dgamma,
            dbeta: self.dbeta,
        })
    }
}

pub(super) fn backward(
    device: &GpuDevice,
    dy: &Tensor,
    x: &Tensor,
    norm: &ChannelNorm,
    rectified: bool,
    kind: Statistics,
) -> Result<BatchNormGradients> {
    let operation = kind.backward_kernel();
    let backward = Backward::new(device, operation, [dy, x], norm, rectified, kind)?;
    let dx = device.allocate(x.shape(), x.dtype())?;
    let entries = [&elements::INPUT_GRADIENT, &vectors::INPUT_GRADIENT];
    backward.launch(device, entries, &[x, dy], norm, dx)
}

pub(super) fn training_backward_in_place(
    device: &GpuDevice,
    dy: &Tensor,
    x: &Tensor,
    norm: &ChannelNorm,
    rectified: bool,
) -> Result<BatchNormGradients> {
    let operation = "batch_norm_training_backward_in_place";
    shapes::distinct(operation, ("dy", dy), ("x", x))?;
    let kind = Statistics::OfTheBatch;
    let backward = Backward::new(device, operation, [dy, x], norm, rectified, kind)?;
    let entries = [
        &elements::INPUT_GRADIENT_IN_PLACE,
        &vectors::INPUT_GRADIENT_IN_PLACE,
    ];
    backward.launch(device, entries, &[dy], norm, x.clone())
}

pub(super) fn batch_norm_evaluation_dx(
    device: &GpuDevice,
    dy: &Tensor,
    norm: &ChannelNorm,
    y: Option<&Tensor>,
) -> Result<Tensor> {
    let operation = "batch_norm_evaluation_dx";
    let shape = shapes::batch_norm_evaluation_dx(dy, norm, y)?;
    let dx = device.allocate(dy.shape(), dy.dtype())?;
    let mut batch = Batch::new(device, operation, shape, norm.eps)?;
    batch.rectify(y.is_some());
    let entries = [&elements::EVALUATION_DX, &vectors::EVALUATION_DX];
    // Where nothing was rectified, the kernel does not look at what stands in y's place.
    let inputs = [y.unwrap_or(dy), dy];
    let of_channels = [&norm.statistics.variance, &norm.gamma];
    batch.launch(device, entries, &inputs, &of_channels, Some(&dx))?;
    Ok(dx)
}

pub(super) fn update_running_statistics(
    device: &GpuDevice,
    running: &BatchStatistics,
    batch: &BatchStatistics,
    update: RunningUpdate,
    gate: Option<&Tensor>,
) -> Result<()> {
    let operation = "update_running_statistics";
    shapes::running_update(running, batch, update, gate)?;
    let channels = running.mean.len();
    let params = Params {
        all_channels: channels as u32,
        momentum: update.momentum,
        unbiased: update.count as f32 / (update.count - 1) as f32,
        ..bytemuck::Zeroable::zeroed()
    };
    let open = match gate {
        Some(gate) => gate.clone(),
        None => device.zeros(&[1], DType::U32)?,
    };
    let parts = [
        device.whole(operation, "batch mean", &batch.mean)?,
        device.whole(operation, "batch variance", &batch.variance)?,
        device.whole(operation, "gate", &open)?,
        device.whole(operation, "running mean", &running.mean)?,
        device.whole(operation, "running variance", &running.variance)?,
    ];
    device.launch(
        &elements::UPDATE_RUNNING,
        params,
        &parts,
        channels.div_ceil(256),
    )
}
