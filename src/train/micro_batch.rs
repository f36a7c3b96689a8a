//! A batch that is larger than memory, one chunk of samples at a time. The loss and its gradients are
//! those of the whole batch; the activations in memory are those of one chunk.
//!
//! A loss that is a mean over samples is a sum over chunks, and so are its gradients. A contrastive loss
//! connects every sample with all others, but only through their embeddings. GradCache (Gao et al. 2021,
//! "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup") first computes all
//! embeddings and keeps nothing else, then the loss and its gradients `dz` with respect to the
//! embeddings, then each chunk again with a backward pass that starts from its rows of `dz`. By the chain
//! rule this is the gradient of the whole batch; it costs a second forward pass.
//!
//! Both equal the whole batch up to rounding (sums over samples are associated differently) if the
//! network treats each sample on its own, with batch norm in evaluation mode. In training mode batch norm
//! normalises by the statistics of the chunk, as in data-parallel training without synchronised
//! statistics. The gradients are exact for that network, which differs slightly from the network of the
//! whole batch.
//!
//! Chunks follow one another and are added in their order, so that a step gives the same bits each time.

use std::ops::Range;

use super::{PartialObjective, StepGradients};
use crate::autograd::{PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::ResNetShape;
use crate::ops::copy::{Concat, Slice};
use crate::ops::elementwise::Add;
use crate::tensor::Tensor;

/// Places `0..batch_size` in runs of `micro_batch` (1 or more). The last run may be shorter.
pub fn chunks(batch_size: usize, micro_batch: usize) -> Vec<Range<usize>> {
    (0..batch_size)
        .step_by(micro_batch.max(1))
        .map(|start| start..batch_size.min(start + micro_batch.max(1)))
        .collect()
}

/// `micro_batch`, if it is smaller than the batch.
pub fn in_parts(batch_size: usize, micro_batch: Option<usize>) -> Option<usize> {
    micro_batch.filter(|&images| images < batch_size)
}

/// Fails where a batch cannot be cut into chunks of `micro_batch` images: none at all, more than the batch, or so few
/// that `encoder`'s last batch norm would see one number a channel, which has no variance. Of each image `views` of
/// `side` pixels go through one pass.
///
/// # Errors
/// `Error::Usage` that says which sizes can be used.
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
        return Err(Error::usage(format!(
            "--micro-batch is 0; use 1 to {batch_size} images, which is the batch size"
        )));
    }
    if images > batch_size {
        return Err(Error::usage(format!(
            "--micro-batch {images} is larger than the batch of {batch_size} images; use {batch_size} or less"
        )));
    }
    let plane = encoder.last_plane(side)?;
    let smallest = match batch_size % images {
        0 => images,
        rest => rest,
    };
    let numbers = smallest * views * plane;
    if numbers < 2 && images < batch_size {
        return Err(Error::usage(format!(
            "--micro-batch {images} cuts a batch of {batch_size} into chunks of which one has {smallest} image; the last batch \
             norm then sees {numbers} number a channel and needs 2 or more: use a --micro-batch that leaves no such chunk"
        )));
    }
    Ok(())
}

/// The loss of step `step` and its gradients, with the activations of `micro_batch` samples (1 or more)
/// at a time.
///
/// # Errors
/// Those of the objective; `Error::NonFinite` also names the samples of the chunk.
pub fn in_chunks<M, O: PartialObjective<M>>(
    objective: &mut O,
    module: &M,
    pass: (&Device, PassOptions),
    step: u64,
    micro_batch: usize,
) -> Result<StepGradients> {
    let samples = objective.samples(step);
    let chunks = chunks(samples.len(), micro_batch);
    let batch = Batch {
        objective,
        module,
        pass,
        step,
        samples,
        chunks,
    };
    match O::IS_MEAN {
        true => batch.accumulated(),
        false => batch.cached(),
    }
}

/// A batch in chunks.
struct Batch<'a, M, O> {
    objective: &'a O,
    module: &'a M,
    pass: (&'a Device, PassOptions),
    step: u64,
    samples: Vec<u32>,
    chunks: Vec<Range<usize>>,
}

impl<M, O: PartialObjective<M>> Batch<'_, M, O> {
    /// The rows of a chunk, recorded on `tape`.
    fn rows(&self, tape: &Tape, chunk: &Range<usize>) -> Result<Var> {
        let samples = &self.samples[chunk.clone()];
        self.objective.rows(self.module, tape, samples, self.step)
    }

    /// A sum over chunks, for a loss that is a mean over samples.
    fn accumulated(&self) -> Result<StepGradients> {
        let (device, options) = self.pass;
        let mut sum: Option<StepGradients> = None;
        for chunk in &self.chunks {
            let part = || {
                let tape = Tape::with(device, options);
                let rows = self.rows(&tape, chunk)?;
                let mean = self.objective.score(&rows, &self.samples[chunk.clone()])?;
                drop(rows);
                let weight = chunk.len() as f32 / self.samples.len() as f32;
                let loss = mean.scale(weight)?;
                drop(mean);
                StepGradients::of(loss, &tape)
            };
            let part = named(chunk, part())?;
            match &mut sum {
                None => sum = Some(part),
                Some(sum) => {
                    let (a, b) = (&sum.loss, &part.loss);
                    sum.loss = device.run(Add { a, b })?;
                    sum.gradients.add(device, part.gradients)?;
                    sum.updates.extend(part.updates);
                }
            }
        }
        sum.ok_or_else(no_images)
    }

    /// GradCache, for a loss over the embeddings of all samples. The objective computes the rows of each
    /// chunk twice, from the same views. The buffers follow the second pass.
    fn cached(&self) -> Result<StepGradients> {
        let (device, options) = self.pass;
        let slice = |x: &Tensor, start, count| device.run(Slice { x, start, count });
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        for chunk in &self.chunks {
            let tape = Tape::forward_only(device, options);
            let z = named(chunk, self.rows(&tape, chunk))?;
            first.push(slice(z.tensor(), 0, chunk.len())?);
            second.push(slice(z.tensor(), chunk.len(), chunk.len())?);
        }
        let (a, b) = (&stack(device, &first)?, &stack(device, &second)?);
        let z = device.run(Concat { a, b })?;
        drop([first, second]);

        let tape = Tape::with(device, options);
        let total = self.objective.score(&tape.leaf(&z), &self.samples)?;
        let StepGradients {
            loss, gradients, ..
        } = StepGradients::of(total, &tape)?;
        let dz = gradients.of(&z).ok_or_else(|| {
            Error::shape("micro_batch", "the loss does not depend on the embeddings")
        })?;

        let mut sum: Option<StepGradients> = None;
        for chunk in &self.chunks {
            let rows = [chunk.start, self.samples.len() + chunk.start];
            let [above, below] = rows.map(|start| slice(dz, start, chunk.len()));
            let (a, b) = (&above?, &below?);
            let dz = device.run(Concat { a, b })?;
            let tape = Tape::with(device, options);
            let gradients = self.rows(&tape, chunk).and_then(|z| z.backward_from(dz));
            let gradients = named(chunk, gradients)?;
            let updates = tape.take_buffer_updates();
            match &mut sum {
                None => {
                    let loss = loss.clone();
                    sum = Some(StepGradients {
                        loss,
                        gradients,
                        updates,
                    });
                }
                Some(sum) => {
                    sum.gradients.add(device, gradients)?;
                    sum.updates.extend(updates);
                }
            }
        }
        sum.ok_or_else(no_images)
    }
}

/// `parts` one above the other. They are joined in pairs, so that each row is copied as often as the pairs
/// nest, and not once per part.
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

/// Adds the images of the chunk to the error of a replay that finds a number that is not finite.
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
    fn chunks_hold_every_place_once() {
        assert_eq!(chunks(5, 2), [0..2, 2..4, 4..5]);
        assert_eq!(chunks(4, 2), [0..2, 2..4]);
        assert_eq!(chunks(3, 1), [0..1, 1..2, 2..3]);
        assert_eq!(chunks(3, 3), std::slice::from_ref(&(0..3)));
    }

    #[test]
    fn a_chunk_must_have_a_variance() {
        // 32 pixels through the stem for large images end as a plane of 1.
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
            let said = refused(batch_size, images, 1).expect("one number has no variance");
            assert!(said.contains("1 number a channel"), "{said}");
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
