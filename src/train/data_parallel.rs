//! Training on several ranks: each computes the gradients of its part of every batch.
//!
//! The part of a rank is a range of positions in the batch, so that augmentation and order are those
//! of one rank. For a loss that is a mean, each rank computes its part of the mean. For a contrastive
//! loss, ranks exchange their embeddings, and each computes the loss of all pairs and the gradient of
//! its own embeddings. Gradients of parameters are added in the order of ranks.
//!
//! With batch statistics per rank, a step has the same bits as one of a single process in chunks of
//! the size of a rank's part (see [`super::micro_batch`]). With synchronised statistics
//! ([`PassOptions::synchronized`]), it is the step of the whole batch, up to rounding.

use super::micro_batch::{Batch, chunks};
use super::{PartialObjective, StepGradients};
use crate::autograd::PassOptions;
use crate::device::Device;
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::tensor::Tensor;

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
    let own = batch.gradients(group)?;
    exchanged(group, module, pass, own, O::IS_MEAN)
}

/// The sum of the gradients of all ranks, and the updates of all ranks in order.
fn exchanged(
    group: Group,
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
    let mut leaves = module.parameters();
    leaves.retain(|parameter| gradients.of(&parameter.value).is_some());
    let own = leaves.iter().filter_map(|leaf| gradients.of(&leaf.value));
    let mut values = Tensor::all_to_vec(is_mean.then_some(&loss).into_iter().chain(own))?;
    group.sum(&mut values)?;
    let mut rest = values.as_slice();
    if is_mean {
        loss = Tensor::from_slice(&rest[..1], &[1], device)?;
        rest = &rest[1..];
    }
    for leaf in &leaves {
        let (sum, others) = rest.split_at(leaf.value.len());
        let sum = Tensor::from_slice(sum, leaf.value.shape(), device)?;
        gradients.set(&leaf.value, &sum)?;
        rest = others;
    }
    if options.synchronized.is_none() {
        let own = updates.iter().flat_map(|update| update.values());
        let all = group.gather(&Tensor::all_to_vec(own)?)?;
        let mut rest = all.as_slice();
        let mut of_ranks = Vec::with_capacity(updates.len() * group.size());
        for _ in 0..group.size() {
            for update in &updates {
                let values = update.values().iter().map(|value| {
                    let (own, others) = rest.split_at(value.len());
                    rest = others;
                    Tensor::from_slice(own, value.shape(), device)
                });
                of_ranks.push(update.with_values(values.collect::<Result<_>>()?));
            }
        }
        updates = of_ranks;
    }
    Ok(StepGradients {
        loss,
        gradients,
        updates,
    })
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
