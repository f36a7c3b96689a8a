//! Copies of slices.

use super::{Concat, CopyTensor, Slice, with_rows};
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::ops::cast::Cast;
use crate::tensor::{DType, Storage, Tensor};

impl RunOn<Cpu> for CopyTensor<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let x = self.x;
        match (x.dtype(), x.storage()) {
            (DType::U32 | DType::U8, Storage::Cpu(storage)) => {
                Ok(cpu.upload(&storage.bytes(), x.shape(), x.dtype()))
            }
            (dtype, _) => cpu.run(Cast { x, dtype }),
        }
    }
}

impl RunOn<Cpu> for Concat<'_> {
    fn run(&self, cpu: &Cpu, rows: usize) -> Result<Tensor> {
        let mut y = cpu.allocate(self.a.len() + self.b.len());
        let (first, second) = y.split_at_mut(self.a.len());
        first.copy_from_slice(&cpu.read(self.a)?);
        second.copy_from_slice(&cpu.read(self.b)?);
        Ok(cpu.floats(&with_rows(self.a.shape(), rows), y))
    }
}

impl RunOn<Cpu> for Slice<'_> {
    fn run(&self, cpu: &Cpu, row: usize) -> Result<Tensor> {
        let mut y = cpu.allocate(self.count * row);
        y.copy_from_slice(&cpu.read(self.x)?[self.start * row..][..self.count * row]);
        Ok(cpu.floats(&with_rows(self.x.shape(), self.count), y))
    }
}
