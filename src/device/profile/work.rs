//! What a call has to do, from its shapes alone: the operations of the formula in the vocabulary, and each operand
//! moved once. What an implementation does beyond that (packing, tiles read again) or saves (Winograd's method) is not
//! counted, so that rates of different implementations can be compared.

use crate::device::shapes::ConvGeometry;
use crate::tensor::Tensor;

/// Floating-point operations and bytes of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// A multiply-add is two; 0 where they depend on more than the shapes.
    pub flops: u64,
    /// Read and written, each operand once.
    pub bytes: u64,
    /// The shapes of what is read, then of what is written.
    pub shapes: [Vec<Vec<usize>>; 2],
    /// What tells calls of one kernel apart whose rates are not comparable: window and stride of a convolution.
    pub variant: Option<String>,
}

impl Work {
    /// The work of `flops` operations on whole tensors; one that changes in place is read and written.
    pub fn new(flops: usize, reads: &[&Tensor], writes: &[&Tensor]) -> Self {
        let bytes = |tensors: &[&Tensor]| -> usize { tensors.iter().map(|x| size(x)).sum() };
        let shapes = |tensors: &[&Tensor]| tensors.iter().map(|x| x.shape().to_vec()).collect();
        Work {
            flops: flops as u64,
            bytes: (bytes(reads) + bytes(writes)) as u64,
            shapes: [shapes(reads), shapes(writes)],
            variant: None,
        }
    }

    /// `per_element` operations for each element of `y`.
    pub(super) fn each(per_element: usize, reads: &[&Tensor], y: &Tensor) -> Self {
        Work::new(per_element * y.len(), reads, &[y])
    }

    /// As it is, with `bytes` more: of what is no tensor, or of a part of one.
    pub(super) fn and_bytes(mut self, bytes: usize) -> Self {
        self.bytes += bytes as u64;
        self
    }

    /// A convolution or one of its gradients; the three cost the same.
    pub(super) fn convolution(geometry: ConvGeometry, reads: [&Tensor; 2], y: &Tensor) -> Self {
        let ConvGeometry { kh, kw, stride, .. } = geometry;
        Work {
            flops: geometry.flops(),
            variant: Some(format!("{kh}x{kw}/{stride}")),
            ..Work::new(0, &reads, &[y])
        }
    }
}

/// Bytes of a tensor.
pub(super) fn size(x: &Tensor) -> usize {
    x.len() * x.dtype().bytes()
}
