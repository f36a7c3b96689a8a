//! A batch that is larger than memory, a chunk of images at a time: the loss and its gradients are those of the whole
//! batch, the activations that are held are those of one chunk.
//!
//! A loss that is a mean over images is a sum over chunks, and so are its gradients: [`accumulated`]. A contrastive
//! loss ties every image to all others, but only through its embedding: [`cached`] (GradCache, Gao et al. 2021,
//! "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup") computes all embeddings first and keeps
//! nothing else, then the loss and its gradients `dz` with respect to them, then each chunk again with a backward pass
//! that starts from the chunk's rows of `dz`. By the chain rule this is the whole batch's gradient; it costs a second
//! forward pass.
//!
//! Both equal the whole batch's to rounding (sums over images are associated differently) wherever the network treats
//! each image on its own: batch norm in evaluation mode. In training mode batch norm normalises by the statistics of
//! the chunk, as data-parallel training does whose workers do not synchronise them: the gradients are exact for that
//! network, which is not quite the network of the whole batch.
//!
//! Chunks follow one another and are added up in their order, so that a step gives the same bits whenever it is taken.

use std::ops::Range;

use super::Tapes;
use crate::autograd::{self, Gradients, Tape, Var};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{ResNet, ResNetShape};
use crate::tensor::Tensor;

/// Places 0 .. `batch_size` in runs of `micro_batch` (1 or more); the last one may be shorter.
pub fn chunks(batch_size: usize, micro_batch: usize) -> Vec<Range<usize>> {
    (0..batch_size)
        .step_by(micro_batch.max(1))
        .map(|start| start..batch_size.min(start + micro_batch.max(1)))
        .collect()
}

/// `micro_batch` where it cuts the batch at all.
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

/// The mean over `batch_size` images, and its gradients, of a loss that `loss` gives as the mean over a chunk's images,
/// `[1]`, recorded on the tape that it is handed.
///
/// # Errors
/// As the passes.
pub fn accumulated(
    tapes: &Tapes,
    batch_size: usize,
    micro_batch: usize,
    mut loss: impl FnMut(&Tape, Range<usize>) -> Result<Var>,
) -> Result<(Tensor, Gradients)> {
    let device = tapes.device();
    let mut sum: Option<(Tensor, Gradients)> = None;
    for chunk in chunks(batch_size, micro_batch) {
        let tape = tapes.recording();
        let part = || -> Result<(Tensor, Gradients)> {
            let mean = loss(&tape, chunk.clone())?;
            let weight = chunk.len() as f32 / batch_size as f32;
            let part = autograd::scale(&tape, weight, &mean)?;
            Ok((part.tensor().clone(), tape.backward(&part)?))
        };
        let (loss, gradients) = named(&chunk, part())?;
        match &mut sum {
            None => sum = Some((loss, gradients)),
            Some((total, all)) => {
                *total = device.add(total, &loss)?;
                all.add(device, gradients)?;
            }
        }
    }
    sum.ok_or_else(no_images)
}

/// A loss over the embeddings of a whole batch, and its gradients. `embed` gives the embeddings `[2c, D]` of the two
/// views of a chunk's c images, first views above second views, recorded on the tape that it is handed; it is called
/// twice a chunk and must draw the same views both times. `loss` gives the loss `[1]` of all embeddings
/// `[2 batch_size, D]`, again with every first view above every second one, as NT-Xent expects them.
///
/// The running statistics of `encoder`'s batch norms that are left to be committed are those of the second pass, a
/// chunk after the other.
///
/// # Errors
/// As the passes; `Error::Shape` where `embed` does not give two rows an image.
pub fn cached(
    tapes: &Tapes,
    encoder: &ResNet,
    batch_size: usize,
    micro_batch: usize,
    mut embed: impl FnMut(&Tape, Range<usize>) -> Result<Var>,
    loss: impl FnOnce(&Tape, &Var) -> Result<Var>,
) -> Result<(Tensor, Gradients)> {
    let device = tapes.device();
    let chunks = chunks(batch_size, micro_batch);
    let [mut first, mut second] = [Vec::new(), Vec::new()];
    for chunk in &chunks {
        let z = named(chunk, embed(&tapes.forward_only(), chunk.clone()))?;
        first.push(device.slice(z.tensor(), 0, chunk.len())?);
        second.push(device.slice(z.tensor(), chunk.len(), chunk.len())?);
    }
    // The second pass leaves the same statistics again.
    encoder.discard_running_statistics();
    let z = device.concat(&stack(device, &first)?, &stack(device, &second)?)?;
    drop([first, second]);

    let tape = tapes.recording();
    let total = loss(&tape, &tape.leaf(&z))?;
    let gradients = tape.backward(&total)?;
    let dz = gradients
        .of(&z)
        .ok_or_else(|| Error::shape("micro_batch", "the loss does not depend on the embeddings"))?;

    let mut sum: Option<Gradients> = None;
    for chunk in &chunks {
        let rows = [chunk.start, batch_size + chunk.start];
        let [above, below] = rows.map(|start| device.slice(dz, start, chunk.len()));
        let dz = device.concat(&above?, &below?)?;
        let tape = tapes.recording();
        let part = embed(&tape, chunk.clone()).and_then(|z| tape.backward_from(&z, &dz));
        let gradients = named(chunk, part)?;
        match &mut sum {
            None => sum = Some(gradients),
            Some(sum) => sum.add(device, gradients)?,
        }
    }
    Ok((total.tensor().clone(), sum.ok_or_else(no_images)?))
}

/// `parts` one above the other. Joined in pairs, each row is copied as often as the pairs nest, not once a part.
fn stack(device: &Device, parts: &[Tensor]) -> Result<Tensor> {
    match parts {
        [] => Err(no_images()),
        [one] => Ok(one.clone()),
        _ => {
            let (above, below) = parts.split_at(parts.len() / 2);
            device.concat(&stack(device, above)?, &stack(device, below)?)
        }
    }
}

fn no_images() -> Error {
    Error::usage("the batch has no images; use 1 or more")
}

/// A replay that finds a value that is not finite also says in which images.
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
