//! The one door to the crate `gemm`: a matrix product over slices with strides, on the calling thread.

/// Rows and columns of the result that the crate is given at a time: it packs both operands as a whole, and its thread
/// keeps the memory.
const SIDE: usize = 512;

/// A matrix in a slice: element (i, j) stands at `i row + j column`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix of rows of `width`.
    pub(crate) fn rows(data: &'a [f32], width: usize) -> Self {
        View {
            data,
            row: width,
            column: 1,
        }
    }

    /// The same matrix turned over its diagonal.
    pub(crate) fn transposed(self) -> Self {
        View {
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// The matrix without its first rows, which may be all; without terms the slice is empty, too.
    pub(crate) fn after_rows(self, rows: usize) -> Self {
        let start = (rows * self.row).min(self.data.len());
        View {
            data: &self.data[start..],
            ..self
        }
    }

    /// The matrix without its first columns, which may be all.
    pub(crate) fn after_columns(self, columns: usize) -> Self {
        self.transposed().after_rows(columns).transposed()
    }

    /// Whether an `m` x `n` matrix lies in the slice.
    fn holds(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < self.data.len()
    }
}

/// What a product does with the elements that the result already has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Overwrite,
    Add,
}

/// `c (+)= a b` with `a` m x k, `b` k x n, and `c` row-major with rows of `width` elements.
///
/// # Panics
/// Where a matrix does not lie in its slice: a mistake of the caller, never of input.
pub(crate) fn matmul(
    [m, n, k]: [usize; 3],
    a: View<'_>,
    b: View<'_>,
    accumulate: Accumulate,
    c: &mut [f32],
    width: usize,
) {
    let target = View::rows(c, width);
    assert!(a.holds(m, k) && b.holds(k, n) && target.holds(m, n) && (m <= 1 || width >= n));
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if accumulate == Accumulate::Overwrite {
            (0..m).for_each(|i| c[i * width..i * width + n].fill(0.0));
        }
        return;
    }
    for i in (0..m).step_by(SIDE) {
        for j in (0..n).step_by(SIDE) {
            let (rows, columns) = (SIDE.min(m - i), SIDE.min(n - j));
            let (a_part, b_part) = (a.after_rows(i), b.after_columns(j));
            let c_part = &mut c[i * width + j..];
            // SAFETY: the assertion above shows that every element that these sizes and strides reach lies in its
            // slice, `c` is borrowed alone, and its rows do not overlap since width >= n.
            unsafe {
                gemm::gemm(
                    rows,
                    columns,
                    k,
                    c_part.as_mut_ptr(),
                    1,
                    width as isize,
                    accumulate == Accumulate::Add,
                    a_part.data.as_ptr(),
                    a.column as isize,
                    a.row as isize,
                    b_part.data.as_ptr(),
                    b.column as isize,
                    b.row as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }
}
