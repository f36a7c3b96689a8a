//! Training with batches that are larger than memory. A batch is processed in chunks
//! (micro-batches), and only the activations of one chunk are in memory. Loss and gradients are
//! those of the whole batch.
//!
//! A loss that is a mean over samples is a weighted sum over chunks, and so are its gradients. A
//! contrastive loss depends on all pairs of samples, but only through their embeddings. GradCache
//! (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup")
//! first computes all embeddings without recording them, then the loss and its gradients `dz` with
//! respect to the embeddings. Each chunk is then computed again, and its backward pass starts from
//! its rows of `dz`. By the chain rule, the result is the gradient of the whole batch. It costs a
//! second forward pass.
//!
//! If the network processes samples independently (batch norm in evaluation mode), both methods
//! differ from the whole batch only in rounding. In training mode, batch norm uses the statistics
//! of the chunk, as in data-parallel training without synchronised batch norm. The gradients are
//! exact for that network, which differs slightly from the network of the whole batch.
//!
//! Chunks are processed and added in a fixed order, so a step always gives the same bits.

use std::ops::Range;

use super::{PartialObjective, StepGradients};
use crate::autograd::{Completed, Gradients, PassOptions, Tape, Var};
use crate::device::Device;
use crate::distributed::{self, Group};
use crate::error::{Error, Result};
use crate::nn::ResNetShape;
use crate::ops::copy::{Concat, Slice};
use crate::ops::elementwise::Add;
use crate::tensor::Tensor;

/// Splits `0..batch_size` into ranges of `micro_batch` (1 or more). The last range may be shorter.
pub fn chunks(batch_size: usize, micro_batch: usize) -> Vec<Range<usize>> {
    let size = micro_batch.max(1);
    let starts = (0..batch_size).step_by(size);
    starts
        .map(|start| start..batch_size.min(start + size))
        .collect()
}

/// Returns `micro_batch` if it is smaller than the batch, or `None` if the batch is one chunk.
pub fn in_parts(batch_size: usize, micro_batch: Option<usize>) -> Option<usize> {
    micro_batch.filter(|&images| images < batch_size)
}

/// Checks that a batch, or the part of each rank, can be split into chunks of `micro_batch` images.
/// Each image has `views` views of `side` x `side` pixels in a pass.
///
/// # Errors
/// `Error::Usage` if `micro_batch` is 0 or larger than the batch, or if the last batch norm of
/// `encoder` would have one value per channel in a chunk, which has no variance.
pub fn check(
    batch_size: usize,
    micro_batch: Option<usize>,
    encoder: &ResNetShape,
    side: usize,
    views: usize,
) -> Result<()> {
    let Some(images) = micro_batch else {
        return Ok(());
    };
    if images == 0 {
        let message = format!("the micro-batch is 0 images; use 1 to {batch_size}");
        return Err(Error::usage(message));
    }
    if images > batch_size {
        return Err(Error::usage(format!(
            "the micro-batch of {images} images is larger than the batch of {batch_size}; use {batch_size} or less"
        )));
    }
    let plane = encoder.last_plane(side)?;
    let part = batch_size.div_ceil(distributed::current().size());
    let smallest = match part % images {
        0 => images,
        rest => rest,
    };
    let values = smallest * views * plane;
    if values < 2 && images < part {
        return Err(Error::usage(format!(
            "with a micro-batch of {images} images, the smallest chunk of a batch of {part} has {smallest} image, and \
             its last batch norm has {values} value per channel and needs 2 or more: use another micro-batch"
        )));
    }
    Ok(())
}

/// Computes the loss of step `step` and its gradients in chunks of `micro_batch` (1 or more)
/// samples.
///
/// # Errors
/// Those of the objective. `Error::NonFinite` also names the images of the chunk.
pub fn in_chunks<M, O: PartialObjective<M>>(
    objective: &mut O,
    module: &M,
    pass: (&Device, PassOptions),
    step: u64,
    micro_batch: usize,
) -> Result<StepGradients> {
    let samples = objective.samples(step);
    let chunks = chunks(samples.len(), micro_batch);
    let batch = Batch::new(objective, module, pass, (step, samples), chunks);
    batch.gradients(Group::ALONE, &mut |_, _| Ok(()))
}

/// A batch in chunks, all of it or the part of one rank.
pub(super) struct Batch<'a, M, O> {
    objective: &'a O,
    module: &'a M,
    pass: (&'a Device, PassOptions),
    step: u64,
    /// All samples of the step.
    samples: Vec<u32>,
    /// The chunks of this rank, as positions in `samples`.
    chunks: Vec<Range<usize>>,
}

impl<'a, M, O: PartialObjective<M>> Batch<'a, M, O> {
    pub(super) fn new(
        objective: &'a O,
        module: &'a M,
        pass: (&'a Device, PassOptions),
        (step, samples): (u64, Vec<u32>),
        chunks: Vec<Range<usize>>,
    ) -> Self {
        Batch {
            objective,
            module,
            pass,
            step,
            samples,
            chunks,
        }
    }

    /// The gradients of this rank's chunks, with their part of the loss if it is a mean, or the loss
    /// of all embeddings. `completed` receives each gradient during the backward pass of the last
    /// chunk.
    pub(super) fn gradients(
        &self,
        group: Group,
        completed: Completed<'_>,
    ) -> Result<StepGradients> {
        if O::IS_MEAN {
            self.accumulated(completed)
        } else {
            self.cached(group, completed)
        }
    }
}

impl<M, O: PartialObjective<M>> Batch<'_, M, O> {
    /// The rows of a chunk, recorded on `tape`.
    fn rows(&self, tape: &Tape, chunk: &Range<usize>) -> Result<Var> {
        let samples = &self.samples[chunk.clone()];
        self.objective.rows(self.module, tape, samples, self.step)
    }

    /// The sum over chunks, for a loss that is a mean over samples.
    fn accumulated(&self, completed: Completed<'_>) -> Result<StepGradients> {
        let (device, options) = self.pass;
        let (mut loss, mut gradients) = (None, None);
        let mut updates = Vec::new();
        for (i, chunk) in self.chunks.iter().enumerate() {
            let is_last = i + 1 == self.chunks.len();
            let mut part = || {
                let tape = Tape::with(device, options);
                let rows = self.rows(&tape, chunk)?;
                let mean = self.objective.score(&rows, &self.samples[chunk.clone()])?;
                drop(rows);
                let weight = chunk.len() as f32 / self.samples.len() as f32;
                let loss = mean.scale(weight)?;
                drop(mean);
                let mut completed = |leaf, sum: &_| {
                    if is_last {
                        completed(leaf, sum)
                    } else {
                        Ok(())
                    }
                };
                StepGradients::onto(gradients.take(), loss, &tape, &mut completed)
            };
            let part = named(chunk, part())?;
            loss = Some(match &loss {
                None => part.loss,
                Some(a) => device.run(Add { a, b: &part.loss })?,
            });
            gradients = Some(part.gradients);
            updates.extend(part.updates);
        }
        Ok(StepGradients {
            loss: loss.ok_or_else(no_images)?,
            gradients: gradients.ok_or_else(no_images)?,
            updates,
        })
    }

    /// GradCache, for a loss over the embeddings of all samples, which ranks exchange. The rows of
    /// each chunk are computed twice, from the same views, unless this rank has one chunk. The
    /// second pass requests the updates of buffers.
    fn cached(&self, group: Group, completed: Completed<'_>) -> Result<StepGradients> {
        let (device, options) = self.pass;
        let slice = |x: &Tensor, start, count| device.run(Slice { x, start, count });
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        let mut recorded = None;
        for chunk in &self.chunks {
            let is_only = self.chunks.len() == 1;
            let tape = if is_only {
                Tape::with(device, options)
            } else {
                Tape::forward_only(device, options)
            };
            let z = named(chunk, self.rows(&tape, chunk))?;
            first.push(slice(z.tensor(), 0, chunk.len())?);
            second.push(slice(z.tensor(), chunk.len(), chunk.len())?);
            recorded = is_only.then_some((z, tape));
        }
        let mut views = [&first, &second].map(|parts| stack(device, parts));
        drop([first, second]);
        if group.size() > 1 {
            views = views.map(|view| of_all_ranks(group, &view?));
        }
        let [a, b] = views;
        let (a, b) = (&a?, &b?);
        let z = device.run(Concat { a, b })?;

        let tape = Tape::with(
            device,
            PassOptions {
                synchronized: None,
                ..options
            },
        );
        let total = self.objective.score(&tape.leaf(&z), &self.samples)?;
        let StepGradients {
            loss, gradients, ..
        } = StepGradients::of(total, &tape)?;
        let dz = gradients.of(&z).ok_or_else(|| {
            Error::shape("micro_batch", "the loss does not depend on the embeddings")
        })?;

        let (mut sum, mut updates) = (None::<Gradients>, Vec::new());
        for (i, chunk) in self.chunks.iter().enumerate() {
            let is_last = i + 1 == self.chunks.len();
            let rows = [chunk.start, self.samples.len() + chunk.start];
            let [above, below] = rows.map(|start| slice(dz, start, chunk.len()));
            let (a, b) = (&above?, &below?);
            let dz = device.run(Concat { a, b })?;
            let (z, tape) = match recorded.take() {
                Some(recorded) => recorded,
                None => {
                    let tape = Tape::with(device, options);
                    (named(chunk, self.rows(&tape, chunk))?, tape)
                }
            };
            let mut completed = |leaf, sum: &_| {
                if is_last {
                    completed(leaf, sum)
                } else {
                    Ok(())
                }
            };
            let gradients = z.backward_onto(dz, sum.take(), &mut completed);
            sum = Some(named(chunk, gradients)?);
            updates.extend(tape.take_buffer_updates());
        }
        Ok(StepGradients {
            loss,
            gradients: sum.ok_or_else(no_images)?,
            updates,
        })
    }
}

/// The rows `[c, D]` of all ranks, one rank above another.
fn of_all_ranks(group: Group, rows: &Tensor) -> Result<Tensor> {
    let mut shape = rows.shape().to_vec();
    shape[0] *= group.size();
    let all = group.gather(&rows.to_vec::<f32>()?)?;
    Tensor::from_slice(&all, &shape, &rows.device())
}

/// Concatenates the rows of `parts`, recursively in halves, so that each row is copied once per
/// level and not once per part.
fn stack(device: &Device, parts: &[Tensor]) -> Result<Tensor> {
    match parts {
        [] => Err(no_images()),
        [one] => Ok(one.clone()),
        _ => {
            let (above, below) = parts.split_at(parts.len() / 2);
            let (a, b) = (&stack(device, above)?, &stack(device, below)?);
            device.run(Concat { a, b })
        }
    }
}

fn no_images() -> Error {
    Error::usage("the batch has no images; use 1 or more")
}

/// Adds the images of the chunk to the message of `Error::NonFinite`.
fn named<T>(chunk: &Range<usize>, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::NonFinite(what) => Error::NonFinite(format!(
            "images {} to {} of the batch: {what}",
            chunk.start + 1,
            chunk.end
        )),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Arch, ResNetConfig, Stem};

    #[test]
    fn chunks_cover_the_batch() {
        assert_eq!(chunks(5, 2), [0..2, 2..4, 4..5]);
        assert_eq!(chunks(4, 2), [0..2, 2..4]);
        assert_eq!(chunks(3, 1), [0..1, 1..2, 2..3]);
        assert_eq!(chunks(3, 3), std::slice::from_ref(&(0..3)));
    }

    #[test]
    fn a_chunk_must_have_a_variance() {
        // With the ImageNet stem, images of 32 x 32 end as planes of one pixel.
        let encoder = ResNetConfig {
            arch: Arch::ResNet18,
            stem: Stem::ImageNet,
            width: 0.0625,
        };
        let large_stem = encoder.shape().unwrap();
        let refused = |batch_size, images, views| {
            check(batch_size, Some(images), &large_stem, 32, views)
                .err()
                .map(|e| e.to_string())
        };
        for (batch_size, images) in [(8, 1), (9, 4), (9, 8)] {
            let message = refused(batch_size, images, 1).expect("one value has no variance");
            assert!(message.contains("1 value per channel"), "{message}");
            assert_eq!(refused(batch_size, images, 2), None);
        }
        assert_eq!(refused(8, 4, 1), None);
        assert_eq!(refused(10, 4, 1), None);
        let small = ResNetConfig {
            stem: Stem::Cifar { padding: 1 },
            ..encoder
        };
        let small = small.shape().unwrap();
        assert!(check(8, Some(1), &small, 32, 1).is_ok());
        assert!(check(8, None, &small, 32, 1).is_ok());
        assert!(check(8, Some(8), &small, 32, 1).is_ok());
        assert!(check(8, Some(9), &small, 32, 1).is_err());
        assert!(check(8, Some(0), &small, 32, 1).is_err());
    }
}
