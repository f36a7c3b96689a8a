//! Matrix products of strided slices on the calling thread, by the crate `gemm`.

/// Largest number of rows and of columns per call of the crate. It packs both operands completely,
/// in memory that the thread keeps.
const SIDE: usize = 512;

/// A matrix in a slice. Element (i, j) has the index `i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix with `width` elements per row.
    pub(crate) fn rows(data: &'a [f32], width: usize) -> Self {
        View {
            data,
            row: width,
            column: 1,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        View {
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// The matrix without its first `rows` rows.
    pub(crate) fn after_rows(self, rows: usize) -> Self {
        // A matrix without columns may have an empty slice.
        let start = (rows * self.row).min(self.data.len());
        View {
            data: &self.data[start..],
            ..self
        }
    }

    /// The matrix without its first `columns` columns.
    pub(crate) fn after_columns(self, columns: usize) -> Self {
        self.transposed().after_rows(columns).transposed()
    }

    /// Whether the slice holds an `m` x `n` matrix.
    fn holds(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < self.data.len()
    }
}

/// Whether a product replaces the elements of the result or is added to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Overwrite,
    Add,
}

/// `c = a b` or `c += a b` with `a` m x k, `b` k x n, and `c` row-major with `width` elements per
/// row.
///
/// # Panics
/// If a slice is too short for its matrix, which is an error of the caller and not of input.
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
            // SAFETY: by the assertion above, every element is inside its slice. `c` is borrowed
            // exclusively, and its rows do not overlap since width >= n.
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
