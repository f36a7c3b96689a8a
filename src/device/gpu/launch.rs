//! Kernel launches.
//!
//! A launch names the kernel, binds a tensor to each of its storage variables by name, and sets its
//! uniform and its grid. If a tensor is larger than a binding of the adapter, the launch is cut
//! into slices of rows, with one dispatch per slice. Bindings start at multiples of 256 bytes, so a
//! slice may start some elements after its binding: [`Slice::offset`] returns their number.

use std::cell::Cell;
use std::ops::{Range, RangeFull};

use super::Gpu;
use super::kernels::{Binding, ElementType, Kernel, Uniform};
use super::stream::Part;
use crate::device::allocator::ALIGNMENT_BYTES;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Bindings start at multiples of this number of bytes.
const ALIGNMENT: usize = ALIGNMENT_BYTES as usize;

/// The part of a tensor that one dispatch binds.
#[derive(Clone)]
pub enum Extent {
    /// The whole tensor, in every slice.
    Whole,
    /// This number of elements per row of the slice.
    PerRow(usize),
    /// A fixed range of elements.
    Elements(Range<usize>),
}

impl From<RangeFull> for Extent {
    fn from(_: RangeFull) -> Self {
        Extent::Whole
    }
}

impl From<usize> for Extent {
    fn from(elements: usize) -> Self {
        Extent::PerRow(elements)
    }
}

impl From<Range<usize>> for Extent {
    fn from(elements: Range<usize>) -> Self {
        Extent::Elements(elements)
    }
}

/// The rows that a launch computes: `0..n` for a number `n`, or a range.
pub struct Rows(Range<usize>);

impl From<usize> for Rows {
    fn from(rows: usize) -> Self {
        Rows(0..rows)
    }
}

impl From<Range<usize>> for Rows {
    fn from(rows: Range<usize>) -> Self {
        Rows(rows)
    }
}

/// The size of a launch along one dimension. If an adapter does not allow that many workgroups
/// along x, they are folded into x and y: workgroup `i` is `y * num_workgroups.x + x`.
#[derive(Clone, Copy, Debug)]
pub enum Grid {
    Workgroups(usize),
    /// Rounded up to whole workgroups of the kernel.
    Invocations(usize),
}

/// The rows that one dispatch computes, and their position in its bindings.
pub struct Slice<'a> {
    pub start: usize,
    pub rows: usize,
    offsets: &'a [(&'static str, usize)],
    /// A name that [`Slice::offset`] did not find.
    unbound: Cell<Option<String>>,
}

impl Slice<'_> {
    /// Elements of `x` in the slice, at `per_row` elements per row. The last row may be shorter.
    pub fn elements(&self, x: &Tensor, per_row: usize) -> usize {
        let end = ((self.start + self.rows) * per_row).min(x.len());
        end.saturating_sub(self.start * per_row)
    }

    /// Elements of the binding before the first element of the slice. The launch fails if nothing
    /// is bound to `name`.
    pub fn offset(&self, name: &str) -> usize {
        let found = self.offsets.iter().find(|(bound, _)| *bound == name);
        found.map_or_else(
            || {
                self.unbound.set(Some(name.to_string()));
                0
            },
            |(_, offset)| *offset,
        )
    }
}

struct Bound<'a> {
    name: &'static str,
    tensor: &'a Tensor,
    extent: Extent,
    writes: bool,
}

/// The rows at which slices may start.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// Only at the first row: there is one slice.
    Never,
    /// At any row. The kernel takes offsets.
    Rows,
    /// At aligned rows, so that all offsets are 0.
    Aligned,
}

/// A launch being prepared. See [`Gpu::launch`].
#[must_use]
pub struct Launch<'a> {
    gpu: &'a Gpu,
    kernel: &'static Kernel,
    rows: Range<usize>,
    cut: Cut,
    bound: Vec<Bound<'a>>,
}

impl Gpu {
    /// Begins a launch of `kernel`. If one of the tensors is f16 and the kernel has a variant for
    /// f16 activations, that variant runs.
    pub fn launch(&self, kernel: &'static Kernel) -> Launch<'_> {
        Launch {
            gpu: self,
            kernel,
            rows: 0..1,
            cut: Cut::Never,
            bound: Vec::with_capacity(kernel.storage.len()),
        }
    }

    /// Cuts `rows` rows into ranges of at most `most` rows that fit a binding of each tensor.
    /// `elements` are the elements per row of each tensor.
    ///
    /// # Errors
    /// `Error::Device` if a single row does not fit.
    pub(crate) fn cut_rows(
        &self,
        rows: usize,
        elements: &[usize],
        most: usize,
    ) -> Result<Vec<Range<usize>>> {
        let bytes = elements.iter().map(|elements| 4 * elements);
        let count = self.fitting(rows, bytes, Cut::Rows)?.min(most).max(1);
        Ok((0..rows)
            .step_by(count)
            .map(|start| start..rows.min(start + count))
            .collect())
    }

    /// The number of rows of `elements` elements that fit a binding at any position.
    pub(crate) fn rows_at_once(&self, elements: usize) -> usize {
        let limit = self.context.binding_limit() as usize - (ALIGNMENT - 4);
        limit / (4 * elements.max(1))
    }

    /// The number of rows per slice, for tensors with these bytes per row.
    fn fitting(
        &self,
        rows: usize,
        bytes: impl Iterator<Item = usize> + Clone,
        cut: Cut,
    ) -> Result<usize> {
        let limit = self.context.binding_limit() as usize;
        let largest = bytes.clone().max().unwrap_or(0).max(1);
        if cut == Cut::Never || rows * largest <= limit {
            return Ok(rows.max(1));
        }
        let count = match cut {
            // A binding may start up to this many bytes before its slice.
            Cut::Rows => (limit - (ALIGNMENT - 4)) / largest,
            _ => {
                // Both the f32 position and half of it, the f16 position, are aligned.
                let steps = bytes.map(|bytes| 2 * ALIGNMENT / gcd(bytes.max(1), 2 * ALIGNMENT));
                let step = steps.max().unwrap_or(1);
                limit / largest / step * step
            }
        };
        if count == 0 {
            return Err(Error::device(
                &self.context.name,
                format!(
                    "a row of a tensor has {largest} bytes and the adapter binds {limit}; use \
                     smaller images or layers, or another device"
                ),
            ));
        }
        Ok(count)
    }
}

impl<'a> Launch<'a> {
    /// Computes these rows, in slices that start at any row. The kernel takes offsets.
    pub fn rows(mut self, rows: impl Into<Rows>) -> Self {
        (self.rows, self.cut) = (rows.into().0, Cut::Rows);
        self
    }

    /// Computes `elements` elements, in slices that start at aligned elements, without offsets.
    pub fn elements(mut self, elements: usize) -> Self {
        (self.rows, self.cut) = (0..elements, Cut::Aligned);
        self
    }

    /// Binds `x` to the variable `name`, which the kernel only reads. The extent is a number of
    /// elements per row, `..` for the whole tensor, or a range of elements.
    pub fn read(mut self, name: &'static str, x: &'a Tensor, extent: impl Into<Extent>) -> Self {
        self.bound.push(Bound {
            name,
            tensor: x,
            extent: extent.into(),
            writes: false,
        });
        self
    }

    /// Binds `y` to the variable `name`, which the kernel writes.
    pub fn write(mut self, name: &'static str, y: &'a Tensor, extent: impl Into<Extent>) -> Self {
        self.bound.push(Bound {
            name,
            tensor: y,
            extent: extent.into(),
            writes: true,
        });
        self
    }

    /// Records one dispatch per slice, with the uniform and the grid that `slice` returns.
    ///
    /// # Errors
    /// `Error::Device` if one row is larger than a binding. `Error::Shape` if a binding is missing,
    /// unknown, given twice, of another type or outside of its tensor, or if the uniform has
    /// another size. These are errors in the launch and not in its tensors.
    pub fn run<P: Uniform>(self, slice: impl Fn(&Slice<'_>) -> (P, Grid)) -> Result<()> {
        let half = self.bound.iter().any(|b| b.tensor.dtype() == DType::F16);
        let kernel = self.kernel.f16.filter(|_| half).unwrap_or(self.kernel);
        let bound = self.in_order(kernel)?;
        let bytes = bound.iter().filter_map(|b| match b.extent {
            Extent::PerRow(elements) => Some(elements * row_bytes(b.tensor.dtype())),
            _ => None,
        });
        let count = self.gpu.fitting(self.rows.len(), bytes, self.cut)?;
        let mut parts = Vec::with_capacity(bound.len());
        let mut offsets = Vec::with_capacity(bound.len());
        let mut words = Vec::with_capacity(32);
        for start in self.rows.clone().step_by(count) {
            let rows = count.min(self.rows.end - start);
            parts.clear();
            offsets.clear();
            words.clear();
            for b in &bound {
                let elements = match &b.extent {
                    Extent::Whole => 0..b.tensor.len(),
                    // The last row may be shorter.
                    Extent::PerRow(n) => start * n..((start + rows) * n).min(b.tensor.len()),
                    Extent::Elements(elements) => elements.clone(),
                };
                let (part, offset) = self.part(kernel, b, elements)?;
                parts.push(part);
                offsets.push((b.name, offset));
            }
            let first = offsets.iter().find(|(_, offset)| *offset != 0);
            if let Some((name, offset)) = first.filter(|_| self.cut == Cut::Aligned) {
                let message = format!(
                    "{name} starts {offset} elements after its binding; expected an aligned start, or use `rows`"
                );
                return Err(Error::shape(kernel.name, message));
            }
            let part = Slice {
                start,
                rows,
                offsets: &offsets,
                unbound: Cell::new(None),
            };
            let (params, grid) = slice(&part);
            if let Some(name) = part.unbound.take() {
                let message = format!("no tensor is bound to {name}, whose offset is used");
                return Err(Error::shape(kernel.name, message));
            }
            params.words(&mut words).ok_or_else(|| {
                Error::shape(kernel.name, "a size exceeds 32 bits; use a smaller batch")
            })?;
            let size: u32 = kernel.workgroup_size.iter().product();
            let workgroups = match grid {
                Grid::Workgroups(count) => count,
                Grid::Invocations(count) => count.div_ceil(size as usize),
            };
            if 4 * words.len() != kernel.params {
                let (given, expected) = (words.len(), kernel.params / 4);
                let message = format!("the uniform has {given} words; expected {expected}");
                return Err(Error::shape(kernel.name, message));
            }
            self.gpu
                .context
                .launch(kernel, bytemuck::cast_slice(&words), &parts, workgroups)?;
        }
        Ok(())
    }

    /// The bindings in the order of the kernel's variables.
    fn in_order(&self, kernel: &'static Kernel) -> Result<Vec<&Bound<'a>>> {
        let wrong = |what: String| Err(Error::shape(kernel.name, what));
        if let Some(b) = self
            .bound
            .iter()
            .find(|b| !kernel.storage.iter().any(|s| s.name == b.name))
        {
            return wrong(format!("the kernel has no variable {}", b.name));
        }
        for (i, b) in self.bound.iter().enumerate() {
            if self.bound[..i].iter().any(|other| other.name == b.name) {
                return wrong(format!("two tensors are bound to {}; bind one", b.name));
            }
        }
        let mut bound = Vec::with_capacity(kernel.storage.len());
        for Binding {
            name,
            writes,
            element,
            ..
        } in kernel.storage
        {
            let Some(b) = self.bound.iter().find(|b| b.name == *name) else {
                return wrong(format!("no tensor is bound to the variable {name}"));
            };
            let fits = match element {
                ElementType::F32 => b.tensor.dtype() == DType::F32,
                ElementType::F16 => b.tensor.dtype() == DType::F16,
                ElementType::Words => true,
            };
            if !fits || *writes != b.writes {
                return wrong(format!(
                    "{name} is bound to {:?}, written: {}; expected {element:?}, written: {writes}",
                    b.tensor, b.writes
                ));
            }
            bound.push(b);
        }
        Ok(bound)
    }

    /// The aligned part of the buffer around `elements`, and the number of elements before them.
    fn part(
        &self,
        kernel: &Kernel,
        b: &Bound<'_>,
        elements: Range<usize>,
    ) -> Result<(Part, usize)> {
        let size = b.tensor.dtype().bytes();
        // A kernel that copies words reads the rest of the last word.
        let end = (b.tensor.len() * size).next_multiple_of(4);
        if elements.start > elements.end || elements.end * size > end {
            let message = format!(
                "elements {elements:?} are bound to {} and its tensor has {}; bind a part of the tensor",
                b.name,
                b.tensor.len()
            );
            return Err(Error::shape(kernel.name, message));
        }
        let skipped = elements.start % (ALIGNMENT / size);
        let storage = self.gpu.storage(b.tensor)?;
        if b.writes {
            storage.written();
        }
        let whole = storage.whole();
        let part = Part {
            offset: whole.offset + ((elements.start - skipped) * size) as u64,
            // A whole number of vec4s.
            size: (((elements.len() + skipped) * size) as u64)
                .next_multiple_of(16)
                .max(16),
            buffer: whole.buffer,
        };
        Ok((part, skipped))
    }
}

/// Bytes per element when rows are cut. f16 counts like f32, so both are cut at the same rows.
fn row_bytes(dtype: DType) -> usize {
    match dtype {
        DType::U8 => 1,
        _ => 4,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
