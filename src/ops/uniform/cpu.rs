//! Blocks of four numbers, in fixed chunks.

use super::Uniform;
use crate::device::cpu::parallel::{CHUNK, for_chunks};
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::philox::{philox4x32, unit_f32};
use crate::tensor::Tensor;

impl RunOn<Cpu> for Uniform<'_> {
    fn run(&self, cpu: &Cpu, len: usize) -> Result<Tensor> {
        let (low, high) = (self.low, self.high);
        let [seed, stream] = self.key.words();
        let mut y = cpu.allocate(len);
        // CHUNK is a multiple of 4, so a block of four words never spans two chunks.
        for_chunks(&mut y, CHUNK, |chunk, part| {
            for (i, four) in part.chunks_mut(4).enumerate() {
                let block = (chunk * (CHUNK / 4) + i) as u32;
                let words = philox4x32(seed, [block, 0, stream[0], stream[1]]);
                for (value, word) in four.iter_mut().zip(words) {
                    *value = low + (high - low) * unit_f32(word);
                }
            }
        });
        Ok(cpu.floats(self.shape, y))
    }
}
