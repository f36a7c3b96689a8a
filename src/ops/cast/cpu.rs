//! A loop over fixed chunks.

use super::Cast;
use crate::device::cpu::parallel::CHUNK;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for Cast<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let stored = cpu.read_activations(self.x)?;
        let mut y = cpu.allocate_activations(self.x.len(), self.dtype);
        y.for_chunks(CHUNK, |i, part| {
            let range = i * CHUNK..i * CHUNK + part.len();
            stored.values().with(range, |x| part.copy_from_slice(x));
        });
        Ok(cpu.activations(self.x.shape(), y))
    }
}
