//! Batch norm on the CPU: the forward pass, the backward pass, then running statistics. Sums over a
//! channel run in fixed groups of whole images, so that they do not depend on the number of
//! threads. Each group accumulates in f32 lanes, which are flushed to float64 totals. The totals of
//! the groups are added in order.

use super::{
    Activation, BatchNorm, BatchNormBackward, BatchNormDx, BatchNormGradients, BatchNormStatistics,
    BatchNormTraining, BatchStatistics, ChannelNorm, Normalized, Statistics, UpdateAverages,
    UpdateRunningStatistics,
};
use crate::device::cpu::activations::{Activations, ReadActivations, with_both};
use crate::device::cpu::parallel;
use crate::device::cpu::simd::simd;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::elementwise::relu_backward;
use crate::ops::optimizer::gate_is_set;
use crate::ops::reduce::sum_f64;
use crate::tensor::Tensor;

/// Number of groups of images.
const GROUPS: usize = 16;
/// Partial sums per channel, which the compiler keeps in vector registers.
const LANES: usize = 16;
/// Elements of a channel between two flushes to float64: 64 per lane, which keeps the rounding
/// error of a lane small.
const FLUSH: usize = 64 * LANES;

type Lanes = [f32; LANES];

/// Two sums over the same elements.
#[derive(Clone, Copy, Default)]
struct Sums {
    lanes: [Lanes; 2],
    totals: [f64; 2],
}

impl Sums {
    /// Adds `terms(a, b)` of each pair of elements of two planes, which have at most [`FLUSH`]
    /// elements. `terms` takes all lanes at once, because the compiler does not vectorise a closure
    /// over single elements here.
    #[inline(always)]
    fn add(&mut self, a: &[f32], b: &[f32], terms: impl Fn(&Lanes, &Lanes) -> [Lanes; 2]) {
        let (lanes_a, rest_a) = a.as_chunks();
        let (lanes_b, rest_b) = b.as_chunks();
        let [mut first, mut second] = self.lanes;
        for (a, b) in lanes_a.iter().zip(lanes_b) {
            let [x, y] = terms(a, b);
            for (sum, x) in first.iter_mut().zip(x) {
                *sum += x;
            }
            for (sum, y) in second.iter_mut().zip(y) {
                *sum += y;
            }
        }
        if !rest_a.is_empty() {
            let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
            a[..rest_a.len()].copy_from_slice(rest_a);
            b[..rest_b.len()].copy_from_slice(rest_b);
            let [x, y] = terms(&a, &b);
            for lane in 0..rest_a.len() {
                first[lane] += x[lane];
                second[lane] += y[lane];
            }
        }
        self.lanes = [first, second];
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, lanes) in self.totals.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            *lanes = [0.0; LANES];
        }
    }
}

/// The sizes of images `[n, c, plane]`.
#[derive(Clone, Copy)]
struct Batch {
    n: usize,
    c: usize,
    plane: usize,
}

impl Batch {
    fn new([n, c, h, w]: [usize; 4]) -> Self {
        Batch { n, c, plane: h * w }
    }

    /// Elements per channel.
    fn count(self) -> f64 {
        (self.n * self.plane) as f64
    }

    /// Returns both sums of each channel. `add` takes the sums, the channel, and the same elements
    /// of its plane in both inputs.
    fn sums(
        self,
        inputs: [Activations<'_>; 2],
        add: impl Fn(&mut Sums, usize, [&[f32]; 2]) + Sync + Send,
    ) -> Vec<[f64; 2]> {
        let per_block = (parallel::CHUNK / self.plane).max(1);
        let per_group = self.n.div_ceil(GROUPS);
        let images_to_flush = (FLUSH / self.plane).max(1);
        let groups = parallel::map(self.n.div_ceil(per_group), |group| {
            let mut sums = vec![Sums::default(); self.c];
            let end = ((group + 1) * per_group).min(self.n);
            for image in group * per_group..end {
                let last = image + 1 == end || (image + 1) % images_to_flush == 0;
                for (block, sums) in sums.chunks_mut(per_block).enumerate() {
                    let first = block * per_block;
                    let start = (image * self.c + first) * self.plane;
                    with_both(inputs, start..start + sums.len() * self.plane, |a, b| {
                        let planes = a.chunks(self.plane).zip(b.chunks(self.plane));
                        simd(
                            #[inline(always)]
                            || {
                                for (i, (sums, (a, b))) in sums.iter_mut().zip(planes).enumerate() {
                                    for (a, b) in a.chunks(FLUSH).zip(b.chunks(FLUSH)) {
                                        add(sums, first + i, [a, b]);
                                        if last || a.len() == FLUSH {
                                            sums.flush();
                                        }
                                    }
                                }
                            },
                        );
                    });
                }
            }
            sums
        });
        let of_channel = |channel: usize| {
            groups.iter().fold([0.0, 0.0], |[a, b], group| {
                let [x, y] = group[channel].totals;
                [a + x, b + y]
            })
        };
        (0..self.c).map(of_channel).collect()
    }
}

impl RunOn<Cpu> for BatchNormStatistics<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<BatchStatistics> {
        let batch = Batch::new(sizes);
        let stored = cpu.read_activations(self.x)?;
        let x = stored.values();
        // Deviations are taken from the mean of the channel's first plane: with deviations from 0,
        // a mean far from 0 would cancel the digits of the variance.
        let center: Vec<f32> = x.with(0..batch.c * batch.plane, |first| {
            let mean = |plane| (sum_f64(plane) / batch.plane as f64) as f32;
            first.chunks(batch.plane).map(mean).collect()
        });
        let sums = batch.sums(
            [x; 2],
            #[inline(always)]
            |sums, channel, [plane, _]| {
                let center = center[channel];
                sums.add(
                    plane,
                    plane,
                    #[inline(always)]
                    |x, _| {
                        let (mut terms, mut squares) = (*x, [0.0; LANES]);
                        terms.iter_mut().for_each(|x| *x -= center);
                        for (square, x) in squares.iter_mut().zip(&terms) {
                            *square = x * x;
                        }
                        [terms, squares]
                    },
                );
            },
        );
        let (mut mean, mut variance) = (cpu.allocate(batch.c), cpu.allocate(batch.c));
        for (channel, [sum, squares]) in sums.into_iter().enumerate() {
            let offset = sum / batch.count();
            mean[channel] = (f64::from(center[channel]) + offset) as f32;
            let exact = squares / batch.count() - offset * offset;
            // `max` would turn NaN into 0.
            variance[channel] = if exact < 0.0 { 0.0 } else { exact as f32 };
        }
        Ok(BatchStatistics {
            mean: cpu.floats(&[batch.c], mean),
            variance: cpu.floats(&[batch.c], variance),
        })
    }
}

/// The normalisation of one channel: `y = (x - mean) factor + shift`.
#[derive(Clone, Copy)]
struct Channel {
    mean: f32,
    /// `1 / sqrt(variance + eps)`
    inverse_std: f32,
    /// `gamma inverse_std`
    factor: f32,
    shift: f32,
}

impl Channel {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        (x - self.mean) * self.factor + self.shift
    }

    /// The gradient before the ReLU, if there is one.
    #[inline(always)]
    fn mask(self, is_rectified: bool, dy: f32, x: f32) -> f32 {
        // `|` instead of `||` avoids a branch.
        let passes = !is_rectified | (self.at(x) > 0.0);
        if passes { dy } else { 0.0 }
    }
}

fn channels(cpu: &Cpu, norm: &ChannelNorm) -> Result<Vec<Channel>> {
    let mean = cpu.read(&norm.statistics.mean)?;
    let variance = cpu.read(&norm.statistics.variance)?;
    let gamma = cpu.read(&norm.gamma)?;
    let beta = cpu.read(&norm.beta)?;
    let channel = |c: usize| {
        let variance = f64::from(variance[c]) + f64::from(norm.eps);
        let inverse_std = (1.0 / variance.sqrt()) as f32;
        Channel {
            mean: mean[c],
            inverse_std,
            factor: inverse_std * gamma[c],
            shift: beta[c],
        }
    };
    Ok((0..mean.len()).map(channel).collect())
}

/// `max(x, 0)`. NaN stays NaN.
#[inline(always)]
fn rectify(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Locks the shortcut of an activation for reading.
pub(crate) fn read_activation<'a>(
    cpu: &Cpu,
    activation: Activation<&'a Tensor>,
) -> Result<Activation<ReadActivations<'a>>> {
    Ok(match activation {
        Activation::Identity => Activation::Identity,
        Activation::Relu => Activation::Relu,
        Activation::AddRelu(shortcut) => Activation::AddRelu(cpu.read_activations(shortcut)?),
    })
}

/// A batch norm with known statistics, and its activation.
pub(crate) struct Normalization<'a> {
    channels: Vec<Channel>,
    plane: usize,
    activation: Activation<Activations<'a>>,
}

impl<'a> Normalization<'a> {
    /// The normalisation of images with planes of `plane` elements.
    pub(crate) fn new(
        cpu: &Cpu,
        norm: &ChannelNorm,
        plane: usize,
        activation: Activation<Activations<'a>>,
    ) -> Result<Self> {
        Ok(Normalization {
            channels: channels(cpu, norm)?,
            plane,
            activation,
        })
    }

    /// Calls `body` with the activation. Its shortcut has only the `len` elements from `start` on.
    fn with_shortcut<R>(
        &self,
        start: usize,
        len: usize,
        body: impl FnOnce(Activation<&[f32]>) -> R,
    ) -> R {
        match self.activation {
            Activation::Identity => body(Activation::Identity),
            Activation::Relu => body(Activation::Relu),
            Activation::AddRelu(shortcut) => shortcut.with(start..start + len, |shortcut| {
                body(Activation::AddRelu(shortcut))
            }),
        }
    }

    /// Normalises whole images in place. `start` is the index of their first element in the batch.
    pub(crate) fn apply(&self, start: usize, y: &mut [f32]) {
        self.with_shortcut(start, y.len(), |activation| {
            self.apply_activation(activation, y);
        });
    }

    fn apply_activation(&self, activation: Activation<&[f32]>, y: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for (i, (channel, y)) in self.planes(y).enumerate() {
                    match activation {
                        Activation::Identity => y.iter_mut().for_each(|y| *y = channel.at(*y)),
                        Activation::Relu => y.iter_mut().for_each(|y| *y = rectify(channel.at(*y))),
                        Activation::AddRelu(shortcut) => {
                            let shortcut = &shortcut[i * self.plane..][..y.len()];
                            let pairs = y.iter_mut().zip(shortcut);
                            pairs.for_each(|(y, &s)| *y = rectify(channel.at(*y) + s));
                        }
                    }
                }
            },
        );
    }

    /// As [`Normalization::apply`], from `x` to `y`.
    fn apply_to(&self, start: usize, x: &[f32], y: &mut [f32]) {
        self.with_shortcut(start, y.len(), |activation| {
            self.apply_activation_to(activation, x, y);
        });
    }

    fn apply_activation_to(&self, activation: Activation<&[f32]>, x: &[f32], y: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                let planes = self.planes(y).zip(x.chunks(self.plane));
                for (i, ((channel, y), x)) in planes.enumerate() {
                    let pairs = y.iter_mut().zip(x);
                    match activation {
                        Activation::Identity => pairs.for_each(|(y, &x)| *y = channel.at(x)),
                        Activation::Relu => pairs.for_each(|(y, &x)| *y = rectify(channel.at(x))),
                        Activation::AddRelu(shortcut) => {
                            let shortcut = &shortcut[i * self.plane..][..x.len()];
                            let pairs = pairs.zip(shortcut);
                            pairs.for_each(|((y, &x), &s)| *y = rectify(channel.at(x) + s));
                        }
                    }
                }
            },
        );
    }

    /// The planes of whole images, with their channels.
    #[inline(always)]
    fn planes<'y>(&self, y: &'y mut [f32]) -> impl Iterator<Item = (Channel, &'y mut [f32])> {
        let channels = self.channels.iter().cycle();
        channels.copied().zip(y.chunks_mut(self.plane))
    }
}

impl RunOn<Cpu> for BatchNorm<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<Tensor> {
        let x = self.x;
        let Batch { c, plane, .. } = Batch::new(sizes);
        let activation = read_activation(cpu, self.activation)?;
        let activation = activation.as_ref().map(|shortcut| shortcut.values());
        let normalization = Normalization::new(cpu, self.norm, plane, activation)?;
        let stored = cpu.read_activations(x)?;
        let mut y = cpu.allocate_activations(x.len(), x.dtype());
        y.for_chunks(c * plane, |image, part| {
            let start = image * c * plane;
            stored.values().with(start..start + part.len(), |x| {
                normalization.apply_to(start, x, part);
            });
        });
        Ok(cpu.activations(x.shape(), y))
    }
}

impl RunOn<Cpu> for BatchNormTraining<'_> {
    fn run(&self, cpu: &Cpu, _: [usize; 4]) -> Result<Normalized> {
        let x = self.x;
        let statistics = cpu.run(BatchNormStatistics { x })?;
        let norm = ChannelNorm {
            statistics: statistics.clone(),
            gamma: self.gamma.clone(),
            beta: self.beta.clone(),
            eps: self.eps,
        };
        let y = cpu.run(BatchNorm {
            x,
            norm: &norm,
            activation: self.activation,
        })?;
        Ok(Normalized { y, statistics })
    }
}

/// The backward pass: the sums of each channel, from which dx is computed.
struct Backward {
    batch: Batch,
    channels: Vec<Channel>,
    is_rectified: bool,
    /// dbeta and dgamma.
    sums: Vec<[f64; 2]>,
    statistics: Statistics,
}

impl Backward {
    /// `dy` is the gradient before the activation, unless that is a ReLU without a shortcut.
    fn new(cpu: &Cpu, op: &BatchNormBackward<'_>, dy: &Tensor, sizes: [usize; 4]) -> Result<Self> {
        let batch = Batch::new(sizes);
        let channels = channels(cpu, op.norm)?;
        let is_rectified = matches!(op.activation, Activation::Relu);
        let stored_dy = cpu.read_activations(dy)?;
        let stored_x = cpu.read_activations(&op.x)?;
        let sums = batch.sums(
            [stored_dy.values(), stored_x.values()],
            #[inline(always)]
            |sums, channel, [dy, x]| {
                let channel = channels[channel];
                sums.add(
                    dy,
                    x,
                    #[inline(always)]
                    |dy, x| {
                        let (mut terms, mut products) = (*dy, [0.0; LANES]);
                        for (dy, &x) in terms.iter_mut().zip(x) {
                            *dy = channel.mask(is_rectified, *dy, x);
                        }
                        for (product, (dy, x)) in products.iter_mut().zip(terms.iter().zip(x)) {
                            *product = dy * ((x - channel.mean) * channel.inverse_std);
                        }
                        [terms, products]
                    },
                );
            },
        );
        Ok(Backward {
            batch,
            channels,
            is_rectified,
            sums,
            statistics: op.statistics,
        })
    }

    /// Elements per image.
    fn image(&self) -> usize {
        self.batch.c * self.batch.plane
    }

    /// Computes dx of one image. Without `x`, `dx` holds x and is overwritten.
    fn image_dx(&self, dy: &[f32], x: Option<&[f32]>, dx: &mut [f32]) {
        let (plane, count) = (self.batch.plane, self.batch.count());
        simd(
            #[inline(always)]
            || {
                let planes = dx.chunks_mut(plane).zip(dy.chunks(plane));
                for (i, (dx, dy)) in planes.enumerate() {
                    if let Some(x) = x {
                        dx.copy_from_slice(&x[i * plane..][..plane]);
                    }
                    let channel = self.channels[i];
                    // dbeta / m, and dgamma / m / sqrt(variance + eps).
                    let (a, b) = match self.statistics {
                        Statistics::OfTheBatch => {
                            let [a, b] = self.sums[i].map(|sum| (sum / count) as f32);
                            (a, b * channel.inverse_std)
                        }
                        Statistics::Constant => (0.0, 0.0),
                    };
                    for (x, &dy) in dx.iter_mut().zip(dy) {
                        let dy = channel.mask(self.is_rectified, dy, *x);
                        *x = channel.factor * (dy - a - (*x - channel.mean) * b);
                    }
                }
            },
        );
    }

    fn gradients(self, cpu: &Cpu, dx: Tensor, dshortcut: Option<Tensor>) -> BatchNormGradients {
        let c = self.batch.c;
        let (mut dgamma, mut dbeta) = (cpu.allocate(c), cpu.allocate(c));
        for (channel, [sum_dy, sum_dy_xhat]) in self.sums.into_iter().enumerate() {
            (dbeta[channel], dgamma[channel]) = (sum_dy as f32, sum_dy_xhat as f32);
        }
        BatchNormGradients {
            dx,
            dgamma: cpu.floats(&[c], dgamma),
            dbeta: cpu.floats(&[c], dbeta),
            dshortcut,
        }
    }
}

impl RunOn<Cpu> for BatchNormBackward<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<BatchNormGradients> {
        let x = &self.x;
        let y = self.activation.shortcut();
        let dshortcut = y.map(|y| relu_backward(cpu, &self.dy, y));
        let dshortcut = dshortcut.transpose()?;
        let dy = dshortcut.as_ref().unwrap_or(&self.dy);
        let backward = Backward::new(cpu, self, dy, sizes)?;
        let stored_dy = cpu.read_activations(dy)?;
        if x.is_unshared() {
            cpu.change_activations(x, backward.image(), |image, part| {
                let start = image * part.len();
                stored_dy.values().with(start..start + part.len(), |dy| {
                    backward.image_dx(dy, None, part);
                });
            })?;
            drop(stored_dy);
            return Ok(backward.gradients(cpu, x.clone(), dshortcut));
        }
        let stored_x = cpu.read_activations(x)?;
        let inputs = [stored_dy.values(), stored_x.values()];
        let mut dx = cpu.allocate_activations(x.len(), x.dtype());
        dx.for_chunks(backward.image(), |image, part| {
            let start = image * part.len();
            with_both(inputs, start..start + part.len(), |dy, x| {
                backward.image_dx(dy, Some(x), part);
            });
        });
        drop(stored_dy);
        Ok(backward.gradients(cpu, cpu.activations(x.shape(), dx), dshortcut))
    }
}

impl RunOn<Cpu> for BatchNormDx<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<Tensor> {
        let batch = Batch::new(sizes);
        let channels = channels(cpu, self.norm)?;
        let stored_dy = cpu.read_activations(self.dy)?;
        let stored_y = self.y.map(|y| cpu.read_activations(y)).transpose()?;
        let image_dx = |dy: &[f32], y: Option<&[f32]>, dx: &mut [f32]| {
            simd(
                #[inline(always)]
                || {
                    for (i, dx) in dx.chunks_mut(batch.plane).enumerate() {
                        let start = i * batch.plane;
                        let (factor, dy) = (channels[i].factor, &dy[start..][..dx.len()]);
                        let pairs = dx.iter_mut().zip(dy);
                        match &y {
                            None => pairs.for_each(|(dx, &dy)| *dx = dy * factor),
                            Some(y) => {
                                for ((dx, &dy), &y) in pairs.zip(&y[start..]) {
                                    *dx = if y > 0.0 { dy * factor } else { 0.0 };
                                }
                            }
                        }
                    }
                },
            );
        };
        let mut dx = cpu.allocate_activations(self.dy.len(), self.dy.dtype());
        dx.for_chunks(batch.c * batch.plane, |image, dx| {
            let start = image * dx.len();
            let range = start..start + dx.len();
            let dy = stored_dy.values();
            match &stored_y {
                None => dy.with(range, |dy| image_dx(dy, None, dx)),
                Some(y) => with_both([dy, y.values()], range, |dy, y| {
                    image_dx(dy, Some(y), dx);
                }),
            }
        });
        Ok(cpu.activations(self.dy.shape(), dx))
    }
}

impl RunOn<Cpu> for UpdateRunningStatistics<'_> {
    fn run(&self, cpu: &Cpu, _: usize) -> Result<()> {
        if gate_is_set(cpu, self.gate)? {
            return Ok(());
        }
        let (running, batch, momentum) = (self.running, self.batch, self.momentum);
        let unbiased = self.count as f32 / (self.count - 1) as f32;
        for (running, batch, factor) in [
            (&running.mean, &batch.mean, 1.0),
            (&running.variance, &batch.variance, unbiased),
        ] {
            let batch = cpu.read(batch)?;
            let mut running = cpu.write(running)?;
            for (running, &batch) in running.iter_mut().zip(batch.iter()) {
                *running = (1.0 - momentum) * *running + momentum * (factor * batch);
            }
        }
        Ok(())
    }
}

impl RunOn<Cpu> for UpdateAverages<'_> {
    fn run(&self, cpu: &Cpu, (): ()) -> Result<()> {
        if gate_is_set(cpu, self.gate)? {
            return Ok(());
        }
        let (values, factors) = (cpu.read(self.values)?, cpu.read(self.factors)?);
        let mut averages = cpu.write(self.averages)?;
        for ((average, value), factor) in averages.iter_mut().zip(&values[..]).zip(&factors[..]) {
            *average = (1.0 - self.momentum) * *average + self.momentum * (factor * value);
        }
        Ok(())
    }
}
