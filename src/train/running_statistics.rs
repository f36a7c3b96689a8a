//! The running statistics of all batch norms of a module, which a GPU updates in one kernel.

use crate::autograd::BufferUpdate;
use crate::device::Device;
use crate::error::Result;
use crate::nn::Parameter;
use crate::ops::batch_norm::UpdateAverages;
use crate::tensor::{Flat, Tensor};

/// The memory of running statistics, and of the statistics of a batch.
pub(super) struct FlatStatistics {
    running: Flat,
    /// Batch norms store the statistics of their batch here, as far as nothing else uses the places.
    batch: Flat,
    buffers: Vec<Parameter>,
    /// The factor of each buffer in the last step, and of each element of `running`.
    factors: (Vec<f32>, Tensor),
}

impl FlatStatistics {
    /// Moves `buffers` next to each other. `None` on the CPU, where an update per batch norm costs
    /// nothing, and if there are none.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub(super) fn new(buffers: &[&Parameter]) -> Result<Option<Self>> {
        let values: Vec<&Tensor> = buffers.iter().map(|buffer| &buffer.value).collect();
        let (Some(running), Some(batch)) = (Flat::of(&values)?, Flat::like(&values)?) else {
            return Ok(None);
        };
        let Some(factors) = Flat::like(&values)? else {
            return Ok(None);
        };
        batch.set_slots(&values)?;
        Ok(Some(FlatStatistics {
            running,
            batch,
            buffers: buffers.iter().map(|&buffer| buffer.clone()).collect(),
            factors: (Vec::new(), factors.whole().clone()),
        }))
    }

    /// Applies the first updates in one kernel, if they are one for each pair of buffers. Returns
    /// the number of applied updates.
    ///
    /// # Errors
    /// As [`BufferUpdate::apply`].
    pub(super) fn apply(
        &mut self,
        device: &Device,
        updates: &[BufferUpdate],
        gate: &Tensor,
    ) -> Result<usize> {
        let count = self.running.len() / 2;
        let Some((factors, momentum)) = updates.get(..count).and_then(|u| self.factors_of(u))
        else {
            return Ok(0);
        };
        let (known, of_elements) = &mut self.factors;
        if *known != factors {
            let mut values = vec![0.0; of_elements.len()];
            for (i, &factor) in factors.iter().enumerate() {
                values[self.running.range(i)].fill(factor);
            }
            of_elements.overwrite(&values)?;
            *known = factors;
        }
        device.run(UpdateAverages {
            averages: self.running.whole(),
            values: self.batch.whole(),
            factors: of_elements,
            momentum,
            gate: Some(gate),
        })?;
        Ok(count)
    }

    /// The factor of each buffer and the momentum of all, if `updates` change each buffer once, and
    /// all tensors are in their places.
    fn factors_of(&self, updates: &[BufferUpdate]) -> Option<(Vec<f32>, f32)> {
        let mut factors = vec![None; self.buffers.len()];
        let mut momentum = None;
        for update in updates {
            let (statistics, [mean, variance]) = (update.running()?, update.values()) else {
                return None;
            };
            let count = statistics.count;
            if count < 2 || *momentum.get_or_insert(statistics.momentum) != statistics.momentum {
                return None;
            }
            let unbiased = count as f32 / (count - 1) as f32;
            for (running, batch, factor) in [
                (&statistics.mean, mean, 1.0),
                (&statistics.variance, variance, unbiased),
            ] {
                let own = |buffer: &Parameter| buffer.value.id() == running.id();
                let index = self.buffers.iter().position(own)?;
                let is_placed = self.running.has(index, running) && self.batch.has(index, batch);
                if !is_placed || factors[index].replace(factor).is_some() {
                    return None;
                }
            }
        }
        Some((factors.into_iter().collect::<Option<_>>()?, momentum?))
    }
}
