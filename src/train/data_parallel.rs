//! Training on several ranks: each computes the gradients of its part of every batch.
//!
//! The part of a rank is a range of positions in the batch, so that augmentation and order are those
//! of one rank. For a loss that is a mean, each rank computes its part of the mean. For a contrastive
//! loss, ranks exchange their embeddings, and each computes the loss of all pairs and the gradient of
//! its own embeddings. Gradients of parameters are added in the order of ranks. They are exchanged in
//! buckets during the backward pass: see `Exchange`.
//!
//! With batch statistics per rank, a step has the same bits as one of a single process in chunks of
//! the size of a rank's part (see [`super::micro_batch`]). With synchronised statistics
//! ([`PassOptions::synchronized`]), it is the step of the whole batch, up to rounding.

use std::collections::HashMap;
use std::mem::take;

use super::micro_batch::{Batch, chunks};
use super::{PartialObjective, StepGradients};
use crate::autograd::{BufferUpdate, PassOptions};
use crate::device::{Device, Readback};
use crate::distributed::{Group, PendingSum};
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::tensor::Tensor;

/// Numbers per bucket, at least, but for the last bucket: 1 MiB.
const BUCKET: usize = 1 << 18;

/// Checks that a batch can be divided among ranks.
///
/// # Errors
/// `Error::Usage` if the ranks would have parts of different sizes.
pub fn check(batch_size: usize, group: Group) -> Result<()> {
    let ranks = group.size();
    if !batch_size.is_multiple_of(ranks) {
        return Err(Error::usage(format!(
            "the batch of {batch_size} images cannot be divided among {ranks} ranks; use a multiple of {ranks}"
        )));
    }
    Ok(())
}

/// The images that a rank processes at a time, if it does not process the whole batch at once.
pub fn at_once(batch_size: usize, micro_batch: Option<usize>, group: Group) -> Option<usize> {
    let part = (group.size() > 1).then_some(batch_size.div_ceil(group.size()));
    micro_batch.into_iter().chain(part).min()
}

/// Computes the loss of step `step` and its gradients. This rank computes its part of the batch, in
/// chunks of `micro_batch` samples. All ranks have to call this.
///
/// # Errors
/// As [`check`]; those of the objective and of the exchange.
pub fn in_ranks<M: Module, O: PartialObjective<M>>(
    objective: &mut O,
    module: &M,
    pass: (&Device, PassOptions),
    step: u64,
    (group, micro_batch): (Group, usize),
) -> Result<StepGradients> {
    let samples = objective.samples(step);
    check(samples.len(), group)?;
    let part = samples.len() / group.size();
    let start = group.rank() * part;
    let own = chunks(part, micro_batch)
        .into_iter()
        .map(|chunk| start + chunk.start..start + chunk.end)
        .collect();
    let batch = Batch::new(objective, module, pass, (step, samples), own);
    let mut exchange = Exchange::new(group, module, pass.0);
    let own = batch.gradients(group, &mut |leaf, sum| exchange.add(leaf, sum))?;
    exchange.finish(module, pass, own, O::IS_MEAN)
}

/// Gradients whose sums over ranks are exchanged in buckets. A bucket is begun once it is full. As the
/// order in which gradients are complete is that of the tape, all ranks have the same buckets. A sum
/// has the same bits in any bucket.
///
/// Reading a gradient would wait for a GPU, so its buckets are begun after the host has recorded the
/// backward pass, while the GPU still computes it.
struct Exchange {
    group: Group,
    waits_to_read: bool,
    /// Parameters without a complete gradient.
    missing: HashMap<u64, Tensor>,
    open: Bucket,
    full: Vec<Bucket>,
    begun: Vec<(Vec<Tensor>, PendingSum)>,
}

#[derive(Default)]
struct Bucket {
    leaves: Vec<Tensor>,
    gradients: Vec<Readback>,
}

impl Exchange {
    fn new(group: Group, module: &impl Module, device: &Device) -> Self {
        let leaves = module
            .parameters()
            .into_iter()
            .map(|parameter| &parameter.value);
        Exchange {
            group,
            waits_to_read: device.as_gpu().is_some(),
            missing: leaves.map(|leaf| (leaf.id(), leaf.clone())).collect(),
            open: Bucket::default(),
            full: Vec::new(),
            begun: Vec::new(),
        }
    }

    /// Adds the complete gradient of this rank, if the leaf is a parameter.
    fn add(&mut self, leaf: u64, gradient: &Tensor) -> Result<()> {
        match self.missing.remove(&leaf) {
            Some(leaf) => self.add_value(leaf, gradient),
            None => Ok(()),
        }
    }

    fn add_value(&mut self, leaf: Tensor, value: &Tensor) -> Result<()> {
        self.open.leaves.push(leaf);
        self.open.gradients.push(value.read()?);
        let numbers: usize = self.open.leaves.iter().map(Tensor::len).sum();
        if numbers >= BUCKET {
            self.full.push(take(&mut self.open));
            if !self.waits_to_read {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// Begins the exchange of the full buckets.
    fn begin(&mut self) -> Result<()> {
        for bucket in take(&mut self.full) {
            let mut values = Vec::new();
            for gradient in bucket.gradients {
                values.extend(gradient.wait_as::<f32>()?);
            }
            let sum = self.group.begin_sum(values)?;
            self.begun.push((bucket.leaves, sum));
        }
        Ok(())
    }

    /// The sums of the gradients of all ranks, and the updates of all ranks in order.
    fn finish(
        mut self,
        module: &impl Module,
        (device, options): (&Device, PassOptions),
        own: StepGradients,
        is_mean: bool,
    ) -> Result<StepGradients> {
        let StepGradients {
            mut loss,
            mut gradients,
            mut updates,
        } = own;
        let own_loss = loss.clone();
        if is_mean {
            self.add_value(own_loss.clone(), &own_loss)?;
        }
        // Parameters that the last chunk does not use.
        for parameter in module.parameters() {
            if let Some(gradient) = gradients.of(&parameter.value) {
                self.add(parameter.value.id(), gradient)?;
            }
        }
        let last = take(&mut self.open);
        self.full.push(last);
        self.begin()?;
        if options.synchronized.is_none() {
            updates = of_all_ranks(self.group, device, &updates)?;
        }
        for (leaves, sum) in self.begun {
            let values = sum.wait()?;
            let mut rest = values.as_slice();
            for leaf in &leaves {
                let (sum, others) = rest.split_at(leaf.len());
                let sum = Tensor::from_slice(sum, leaf.shape(), device)?;
                if leaf.id() == own_loss.id() {
                    loss = sum
                } else {
                    gradients.set(leaf, &sum)?
                }
                rest = others;
            }
        }
        Ok(StepGradients {
            loss,
            gradients,
            updates,
        })
    }
}

/// The updates of all ranks, one rank after another.
fn of_all_ranks(group: Group, device: &Device, own: &[BufferUpdate]) -> Result<Vec<BufferUpdate>> {
    let values = own.iter().flat_map(BufferUpdate::values);
    let all = group.gather(&Tensor::all_to_vec(values)?)?;
    let mut rest = all.as_slice();
    let mut of_ranks = Vec::with_capacity(own.len() * group.size());
    for _ in 0..group.size() {
        for update in own {
            let values = update.values().iter().map(|value| {
                let (own, others) = rest.split_at(value.len());
                rest = others;
                Tensor::from_slice(own, value.shape(), device)
            });
            of_ranks.push(update.with_values(values.collect::<Result<_>>()?));
        }
    }
    Ok(of_ranks)
}

#[cfg(test)]
mod tests {
    use super::{at_once, check};
    use crate::distributed::Group;

    #[test]
    fn a_rank_processes_its_part_or_less() {
        let ranks = Group::of(1, 4);
        assert_eq!(at_once(16, None, Group::ALONE), None);
        assert_eq!(at_once(16, Some(8), Group::ALONE), Some(8));
        assert_eq!(at_once(16, None, ranks), Some(4));
        assert_eq!(at_once(16, Some(8), ranks), Some(4));
        assert_eq!(at_once(16, Some(2), ranks), Some(2));
        assert!(check(16, ranks).is_ok());
        assert!(check(18, ranks).is_err());
    }
}
