//! Sums of a channel over fixed groups of whole images. The lanes of a group are flushed to float64
//! totals; then the totals of the groups are added in order.

use super::{
    Activation, BatchNorm, BatchNormBackward, BatchNormDx, BatchNormGradients, BatchNormStatistics,
    BatchStatistics, ChannelNorm, Statistics, UpdateRunningStatistics,
};
use crate::device::cpu::activations::{Activations, ReadActivations, with_both};
use crate::device::cpu::parallel;
use crate::device::cpu::simd::simd;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::reduce::sum_f64;
use crate::tensor::Tensor;

/// Groups of images whose sums are taken apart.
const GROUPS: usize = 16;
/// Partial sums that the compiler keeps in vector registers.
const LANES: usize = 16;
/// Elements of a channel after which its lanes go into the float64 totals: 64 a lane, so that rounding stays far below
/// that of the terms' own sum.
const FLUSH: usize = 64 * LANES;

type Lanes = [f32; LANES];

/// Two sums that run beside each other.
#[derive(Clone, Copy, Default)]
struct Sums {
    lanes: [Lanes; 2],
    totals: [f64; 2],
}

impl Sums {
    /// Adds `terms(a, b)` of each pair of two planes, of at most [`FLUSH`] elements; a lane's terms depend on its pair
    /// alone. (Lanes at a time: terms of one pair at a time are not turned into vector code.)
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

/// Images `[n, c, plane]`.
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

    /// Elements a channel.
    fn count(self) -> f64 {
        (self.n * self.plane) as f64
    }

    /// Both sums of every channel, where `add` adds a part of a channel's plane, whose elements it is given of both
    /// inputs.
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
        // About the mean of the channel's first plane, so that a mean far from zero, or one element far from the others,
        // costs no digits of the variance.
        let about: Vec<f32> = x.with(0..batch.c * batch.plane, |first| {
            let mean = |plane| (sum_f64(plane) / batch.plane as f64) as f32;
            first.chunks(batch.plane).map(mean).collect()
        });
        let sums = batch.sums(
            [x; 2],
            #[inline(always)]
            |sums, channel, [plane, _]| {
                let about = about[channel];
                sums.add(
                    plane,
                    plane,
                    #[inline(always)]
                    |x, _| {
                        let (mut terms, mut squares) = (*x, [0.0; LANES]);
                        terms.iter_mut().for_each(|x| *x -= about);
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
            let d = sum / batch.count();
            mean[channel] = (f64::from(about[channel]) + d) as f32;
            // NaN stays NaN.
            let found = squares / batch.count() - d * d;
            variance[channel] = if found < 0.0 { 0.0 } else { found as f32 };
        }
        Ok(BatchStatistics {
            mean: cpu.floats(&[batch.c], mean),
            variance: cpu.floats(&[batch.c], variance),
        })
    }
}

/// What a batch norm does to a channel: `y = (x - mean) factor + shift`, where `factor` is `gamma deviation`.
#[derive(Clone, Copy)]
struct Line {
    mean: f32,
    /// `1 / sqrt(variance + eps)`
    deviation: f32,
    factor: f32,
    shift: f32,
}

impl Line {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        (x - self.mean) * self.factor + self.shift
    }

    /// What of `dy` passes the rectifier, where there is one.
    #[inline(always)]
    fn passed(self, rectified: bool, dy: f32, x: f32) -> f32 {
        // Without a short cut, so that there is no jump.
        let passes = !rectified | (self.at(x) > 0.0);
        if passes { dy } else { 0.0 }
    }
}

fn lines(cpu: &Cpu, norm: &ChannelNorm) -> Result<Vec<Line>> {
    let mean = cpu.read(&norm.statistics.mean)?;
    let variance = cpu.read(&norm.statistics.variance)?;
    let gamma = cpu.read(&norm.gamma)?;
    let beta = cpu.read(&norm.beta)?;
    let line = |channel: usize| {
        let variance = f64::from(variance[channel]) + f64::from(norm.eps);
        let deviation = (1.0 / variance.sqrt()) as f32;
        Line {
            mean: mean[channel],
            deviation,
            factor: deviation * gamma[channel],
            shift: beta[channel],
        }
    };
    Ok((0..mean.len()).map(line).collect())
}

/// max(x, 0) that keeps NaN.
#[inline(always)]
fn rectify(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// The activation with its shortcut read.
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

/// A batch norm of evaluation or training, and what follows it, as changes of a buffer in place.
pub(crate) struct Normalization<'a> {
    lines: Vec<Line>,
    plane: usize,
    activation: Activation<Activations<'a>>,
}

impl<'a> Normalization<'a> {
    /// Of images with planes of `plane` elements; `shortcut` is the activation's, read.
    pub(crate) fn new(
        cpu: &Cpu,
        norm: &ChannelNorm,
        plane: usize,
        activation: Activation<Activations<'a>>,
    ) -> Result<Self> {
        Ok(Normalization {
            lines: lines(cpu, norm)?,
            plane,
            activation,
        })
    }

    /// What `body` makes of the activation whose shortcut is cut to the `len` elements from `start` on.
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

    /// Replaces `y`, whole planes that begin at element `start` of the batch, by their result.
    pub(crate) fn apply(&self, start: usize, y: &mut [f32]) {
        self.with_shortcut(start, y.len(), |activation| {
            self.apply_activation(start, activation, y)
        });
    }

    fn apply_activation(&self, start: usize, activation: Activation<&[f32]>, y: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for (i, (line, y)) in self.planes(start, y).enumerate() {
                    match activation {
                        Activation::Identity => y.iter_mut().for_each(|y| *y = line.at(*y)),
                        Activation::Relu => y.iter_mut().for_each(|y| *y = rectify(line.at(*y))),
                        Activation::AddRelu(shortcut) => {
                            let shortcut = &shortcut[i * self.plane..][..y.len()];
                            let pairs = y.iter_mut().zip(shortcut);
                            pairs.for_each(|(y, &s)| *y = rectify(line.at(*y) + s));
                        }
                    }
                }
            },
        );
    }

    /// The same of `x`, into `y`.
    fn apply_to(&self, start: usize, x: &[f32], y: &mut [f32]) {
        self.with_shortcut(start, y.len(), |activation| {
            self.apply_activation_to(start, activation, x, y);
        });
    }

    fn apply_activation_to(
        &self,
        start: usize,
        activation: Activation<&[f32]>,
        x: &[f32],
        y: &mut [f32],
    ) {
        simd(
            #[inline(always)]
            || {
                let planes = self.planes(start, y).zip(x.chunks(self.plane));
                for (i, ((line, y), x)) in planes.enumerate() {
                    let pairs = y.iter_mut().zip(x);
                    match activation {
                        Activation::Identity => pairs.for_each(|(y, &x)| *y = line.at(x)),
                        Activation::Relu => pairs.for_each(|(y, &x)| *y = rectify(line.at(x))),
                        Activation::AddRelu(shortcut) => {
                            let shortcut = &shortcut[i * self.plane..][..x.len()];
                            let pairs = pairs.zip(shortcut);
                            pairs.for_each(|((y, &x), &s)| *y = rectify(line.at(x) + s));
                        }
                    }
                }
            },
        );
    }

    /// The planes of `y`, which begins at element `start` of the batch, each with its channel's line.
    #[inline(always)]
    fn planes<'y>(
        &self,
        start: usize,
        y: &'y mut [f32],
    ) -> impl Iterator<Item = (Line, &'y mut [f32])> {
        let first = start / self.plane % self.lines.len();
        let channels = self.lines[first..].iter().chain(self.lines.iter().cycle());
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

/// How a batch norm goes back: the sums of every channel, and from them dx.
struct Backward {
    batch: Batch,
    lines: Vec<Line>,
    rectified: bool,
    /// dbeta and dgamma.
    sums: Vec<[f64; 2]>,
    statistics: Statistics,
}

impl Backward {
    fn new(cpu: &Cpu, op: &BatchNormBackward<'_>, sizes: [usize; 4]) -> Result<Self> {
        let batch = Batch::new(sizes);
        let lines = lines(cpu, op.norm)?;
        let rectified = op.is_rectified;
        let stored_dy = cpu.read_activations(op.dy)?;
        let stored_x = cpu.read_activations(&op.x)?;
        let sums = batch.sums(
            [stored_dy.values(), stored_x.values()],
            #[inline(always)]
            |sums, channel, [dy, x]| {
                let line = lines[channel];
                sums.add(
                    dy,
                    x,
                    #[inline(always)]
                    |dy, x| {
                        let (mut terms, mut products) = (*dy, [0.0; LANES]);
                        for (dy, &x) in terms.iter_mut().zip(x) {
                            *dy = line.passed(rectified, *dy, x);
                        }
                        for (product, (dy, x)) in products.iter_mut().zip(terms.iter().zip(x)) {
                            *product = dy * ((x - line.mean) * line.deviation);
                        }
                        [terms, products]
                    },
                );
            },
        );
        Ok(Backward {
            batch,
            lines,
            rectified,
            sums,
            statistics: op.statistics,
        })
    }

    /// Elements of an image.
    fn image(&self) -> usize {
        self.batch.c * self.batch.plane
    }

    /// dx of an image, in the place of its x, or of whatever `dx` holds where x is elsewhere.
    fn image_dx(&self, dy: &[f32], x: Option<&[f32]>, dx: &mut [f32]) {
        let (plane, count) = (self.batch.plane, self.batch.count());
        simd(
            #[inline(always)]
            || {
                let planes = dx.chunks_mut(plane).zip(dy.chunks(plane));
                for (channel, (dx, dy)) in planes.enumerate() {
                    if let Some(x) = x {
                        dx.copy_from_slice(&x[channel * plane..][..plane]);
                    }
                    let line = self.lines[channel];
                    // dbeta / m, and dgamma / m / sqrt(variance + eps).
                    let (a, b) = match self.statistics {
                        Statistics::OfTheBatch => {
                            let [a, b] = self.sums[channel].map(|sum| (sum / count) as f32);
                            (a, b * line.deviation)
                        }
                        Statistics::Constant => (0.0, 0.0),
                    };
                    for (x, &dy) in dx.iter_mut().zip(dy) {
                        let passed = line.passed(self.rectified, dy, *x);
                        *x = line.factor * (passed - a - (*x - line.mean) * b);
                    }
                }
            },
        );
    }

    fn gradients(self, cpu: &Cpu, dx: Tensor) -> BatchNormGradients {
        let c = self.batch.c;
        let (mut dgamma, mut dbeta) = (cpu.allocate(c), cpu.allocate(c));
        for (channel, [sum_dy, sum_dy_xhat]) in self.sums.into_iter().enumerate() {
            (dbeta[channel], dgamma[channel]) = (sum_dy as f32, sum_dy_xhat as f32);
        }
        BatchNormGradients {
            dx,
            dgamma: cpu.floats(&[c], dgamma),
            dbeta: cpu.floats(&[c], dbeta),
        }
    }
}

impl RunOn<Cpu> for BatchNormBackward<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<BatchNormGradients> {
        let (dy, x) = (self.dy, &self.x);
        let backward = Backward::new(cpu, self, sizes)?;
        let stored_dy = cpu.read_activations(dy)?;
        if x.is_unshared() {
            cpu.change_activations(x, backward.image(), |image, part| {
                let start = image * part.len();
                stored_dy.values().with(start..start + part.len(), |dy| {
                    backward.image_dx(dy, None, part);
                });
            })?;
            return Ok(backward.gradients(cpu, x.clone()));
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
        Ok(backward.gradients(cpu, cpu.activations(x.shape(), dx)))
    }
}

impl RunOn<Cpu> for BatchNormDx<'_> {
    fn run(&self, cpu: &Cpu, sizes: [usize; 4]) -> Result<Tensor> {
        let batch = Batch::new(sizes);
        let lines = lines(cpu, self.norm)?;
        let stored = cpu.read_activations(self.dy)?;
        let result = self.y.map(|y| cpu.read_activations(y)).transpose()?;
        let of_image = |dy: &[f32], result: Option<&[f32]>, part: &mut [f32]| {
            simd(
                #[inline(always)]
                || {
                    for (channel, dx) in part.chunks_mut(batch.plane).enumerate() {
                        let start = channel * batch.plane;
                        let (factor, dy) = (lines[channel].factor, &dy[start..][..dx.len()]);
                        match &result {
                            None => dx
                                .iter_mut()
                                .zip(dy)
                                .for_each(|(dx, &dy)| *dx = dy * factor),
                            Some(y) => {
                                let pairs = dy.iter().zip(&y[start..][..dx.len()]);
                                for (dx, (&dy, &y)) in dx.iter_mut().zip(pairs) {
                                    *dx = if y > 0.0 { dy * factor } else { 0.0 };
                                }
                            }
                        }
                    }
                },
            );
        };
        let mut dx = cpu.allocate_activations(self.dy.len(), self.dy.dtype());
        dx.for_chunks(batch.c * batch.plane, |image, part| {
            let first = image * batch.c * batch.plane;
            let range = first..first + part.len();
            match &result {
                None => stored.values().with(range, |dy| of_image(dy, None, part)),
                Some(y) => with_both([stored.values(), y.values()], range, |dy, y| {
                    of_image(dy, Some(y), part);
                }),
            }
        });
        Ok(cpu.activations(self.dy.shape(), dx))
    }
}

impl RunOn<Cpu> for UpdateRunningStatistics<'_> {
    fn run(&self, cpu: &Cpu, _: usize) -> Result<()> {
        if let Some(gate) = self.gate
            && cpu.read_u32(gate)?[0] != 0
        {
            return Ok(());
        }
        let (running, batch, update) = (self.running, self.batch, self.update);
        let unbiased = update.count as f32 / (update.count - 1) as f32;
        for (running, batch, factor) in [
            (&running.mean, &batch.mean, 1.0),
            (&running.variance, &batch.variance, unbiased),
        ] {
            let batch = cpu.read(batch)?;
            let mut running = cpu.write(running)?;
            for (running, &batch) in running.iter_mut().zip(batch.iter()) {
                *running = (1.0 - update.momentum) * *running + update.momentum * (factor * batch);
            }
        }
        Ok(())
    }
}
