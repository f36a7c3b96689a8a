//! The order of the images in a training or an evaluation.

use crate::error::{Error, Result};
use crate::philox::Philox;

/// Keeps this stream of random numbers apart from those of other purposes.
const PURPOSE: u32 = u32::from_le_bytes(*b"epch");

/// Batches for pretraining. Every epoch is a new shuffle by (seed, epoch), and its last partial
/// batch is dropped.
///
/// [`EpochSampler::batch`] depends only on the step, so a resumed run gets the batches of an
/// uninterrupted one.
#[derive(Clone, Debug)]
pub struct EpochSampler {
    seed: u64,
    batch_size: usize,
    batches_per_epoch: usize,
    /// The epoch that `order` belongs to.
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl EpochSampler {
    /// A sampler of batches of `batch_size` images from a set of `len`.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch is empty or larger than the data.
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::usage("the batch size is 0; use 1 or more"));
        }
        if batch_size > len {
            return Err(Error::usage(format!(
                "the batch size {batch_size} is larger than the data, {len} images; use {len} or fewer"
            )));
        }
        let last = u32::try_from(len).map_err(|_| {
            Error::usage(format!(
                "{len} images are more than indices of 32 bits can count"
            ))
        })?;
        Ok(EpochSampler {
            seed,
            batch_size,
            batches_per_epoch: len / batch_size,
            epoch: None,
            order: (0..last).collect(),
        })
    }

    /// The number of whole batches in an epoch, at least 1.
    pub fn batches_per_epoch(&self) -> usize {
        self.batches_per_epoch
    }

    /// The image indices of `step`, which counts from 0 through all epochs.
    pub fn batch(&mut self, step: u64) -> Vec<u32> {
        let epoch = step / self.batches_per_epoch as u64;
        if self.epoch != Some(epoch) {
            for (i, index) in self.order.iter_mut().enumerate() {
                *index = i as u32;
            }
            Philox::new(self.seed, [epoch as u32, (epoch >> 32) as u32, PURPOSE])
                .shuffle(&mut self.order);
            self.epoch = Some(epoch);
        }
        let start = (step % self.batches_per_epoch as u64) as usize * self.batch_size;
        self.order[start..start + self.batch_size].to_vec()
    }
}

/// Indices from 0 to `len` - 1 in order, in batches of `size` (at least 1) for evaluation. The last
/// batch may be smaller.
pub fn batches(len: u32, size: u32) -> impl Iterator<Item = Vec<u32>> {
    let size = size.max(1);
    (0..len.div_ceil(size)).map(move |i| {
        let start = i * size;
        (start..len.min(start.saturating_add(size))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &mut EpochSampler, epoch: u64) -> Vec<u32> {
        let count = sampler.batches_per_epoch() as u64;
        (0..count)
            .flat_map(|i| sampler.batch(epoch * count + i))
            .collect()
    }

    #[test]
    fn an_epoch_visits_no_image_twice_and_drops_the_partial_batch() {
        let mut sampler = EpochSampler::new(23, 5, 1).unwrap();
        assert_eq!(sampler.batches_per_epoch(), 4);
        let mut seen = epoch(&mut sampler, 0);
        assert_eq!(seen.len(), 20);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 20);
        assert!(seen.iter().all(|&i| i < 23));
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let mut sampler = EpochSampler::new(100, 10, 1).unwrap();
        let mut other = EpochSampler::new(100, 10, 2).unwrap();
        let (first, second) = (epoch(&mut sampler, 0), epoch(&mut sampler, 1));
        assert_ne!(first, second);
        assert_ne!(first, epoch(&mut other, 0));
        assert_ne!(first, (0..100).collect::<Vec<u32>>());
    }

    #[test]
    fn a_batch_depends_on_the_step_alone() {
        let mut forward = EpochSampler::new(50, 8, 9).unwrap();
        let in_order: Vec<Vec<u32>> = (0..20).map(|step| forward.batch(step)).collect();
        for step in (0..20).rev() {
            let mut fresh = EpochSampler::new(50, 8, 9).unwrap();
            assert_eq!(fresh.batch(step), in_order[step as usize]);
            assert_eq!(forward.batch(step), in_order[step as usize]);
        }
    }

    #[test]
    fn every_image_comes_first_equally_often() {
        let mut sampler = EpochSampler::new(5, 5, 3).unwrap();
        let mut counts = [0u32; 5];
        for step in 0..10_000 {
            counts[sampler.batch(step)[0] as usize] += 1;
        }
        // Four standard deviations of a binomial with p = 1/5.
        assert!(
            counts.iter().all(|&c| c.abs_diff(2_000) < 160),
            "{counts:?}"
        );
    }

    #[test]
    fn a_batch_larger_than_the_data_names_both_numbers() {
        let error = EpochSampler::new(100, 128, 0).unwrap_err();
        assert!(
            matches!(&error, Error::Usage(m) if m.contains("128") && m.contains("100")),
            "{error}"
        );
        assert!(matches!(EpochSampler::new(100, 0, 0), Err(Error::Usage(_))));
        assert!(EpochSampler::new(100, 100, 0).is_ok());
    }

    #[test]
    fn evaluation_keeps_the_partial_batch() {
        let all: Vec<Vec<u32>> = batches(7, 3).collect();
        assert_eq!(all, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(batches(6, 3).count(), 2);
        assert_eq!(batches(0, 3).count(), 0);
        assert_eq!(batches(2, u32::MAX).collect::<Vec<_>>(), [vec![0, 1]]);
    }
}
