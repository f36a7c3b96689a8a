//! Copies between buffers.

use super::{Concat, CopyTensor, Slice, with_rows};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Gpu> for CopyTensor<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        let y = gpu.allocate(self.x.shape(), self.x.dtype())?;
        gpu.copy_elements((self.x, 0), (&y, 0), self.x.len())?;
        Ok(y)
    }
}

impl RunOn<Gpu> for Concat<'_> {
    fn run(&self, gpu: &Gpu, rows: usize) -> Result<Tensor> {
        let y = gpu.floats(&with_rows(self.a.shape(), rows))?;
        gpu.copy_elements((self.a, 0), (&y, 0), self.a.len())?;
        gpu.copy_elements((self.b, 0), (&y, self.a.len()), self.b.len())?;
        Ok(y)
    }
}

impl RunOn<Gpu> for Slice<'_> {
    fn run(&self, gpu: &Gpu, row: usize) -> Result<Tensor> {
        let y = gpu.floats(&with_rows(self.x.shape(), self.count))?;
        gpu.copy_elements((self.x, self.start * row), (&y, 0), self.count * row)?;
        Ok(y)
    }
}
