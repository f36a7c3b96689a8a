//! The matrix products at the 36 points.
//!
//! The transforms already write the layout that the products read, so no operand is packed. Packing
//! would take too long for matrices this small. The right operand and the result are in panels of
//! 32 columns, and the left operand is row-major. A tile of the result stays in registers: 8 rows x
//! 32 columns with AVX-512, 6 x 16 with AVX2. Each term of the sum multiplies a row of the panel by
//! one number per row of the tile.

use super::layout::{Matrices, PANEL};
use super::transforms::PRODUCTS;
use super::vector::{Vector, Vectorized, run};
use crate::device::cpu::matmul::Accumulate;

/// Number of terms that are summed in registers before a tile is stored. A panel with this many
/// rows has 32 KiB and fits the L1 cache.
const TERMS: usize = 256;

/// `c (+)= a b` at every point, with `a` `[rows of c, terms]`, `b` `[terms, columns of c]`.
pub(super) fn multiply(
    a: (Matrices, &[f32]),
    b: (Matrices, &[f32]),
    accumulate: Accumulate,
    c: (Matrices, &mut [f32]),
) {
    assert!(a.0.rows == c.0.rows && b.0.rows <= a.0.columns && a.0.panel == a.0.columns);
    products::<false>(a, b, accumulate, c);
}

/// `c (+)= a^T b` at every point, with `a` `[terms, rows of c]`, `b` `[terms, columns of c]`.
pub(super) fn multiply_transposed(
    a: (Matrices, &[f32]),
    b: (Matrices, &[f32]),
    accumulate: Accumulate,
    c: (Matrices, &mut [f32]),
) {
    assert!(a.0.rows == b.0.rows && c.0.rows <= a.0.columns && a.0.panel == a.0.columns);
    products::<true>(a, b, accumulate, c);
}

fn products<const TRANSPOSED: bool>(
    (left, a): (Matrices, &[f32]),
    (right, b): (Matrices, &[f32]),
    accumulate: Accumulate,
    (result, c): (Matrices, &mut [f32]),
) {
    assert!(right.columns == result.columns && right.panel == PANEL && result.panel == PANEL);
    assert!(a.len() >= left.len() && b.len() >= right.len() && c.len() >= result.len());
    for first in (0..right.rows).step_by(TERMS) {
        let add = accumulate == Accumulate::Add || first > 0;
        for (panel, point) in (0..result.columns / PANEL)
            .flat_map(|panel| (0..PRODUCTS).map(move |point| (panel, point)))
        {
            let column = panel * PANEL;
            let a = &a[left.index(point, 0, 0)..];
            let block = Block::<TRANSPOSED> {
                rows: result.rows,
                terms: TERMS.min(right.rows - first),
                a: if TRANSPOSED {
                    &a[first * left.panel..]
                } else {
                    &a[first..]
                },
                stride: left.panel,
                b: &b[right.index(point, first, column)..],
                c: &mut c[result.index(point, 0, column)..],
                add,
            };
            run(block);
        }
    }
}

/// The product of `rows` x `terms` elements of `a` with a panel of `b`, in a panel `c` of the
/// result.
struct Block<'a, const TRANSPOSED: bool> {
    rows: usize,
    terms: usize,
    a: &'a [f32],
    /// Stride between the rows of `a` as it is stored.
    stride: usize,
    b: &'a [f32],
    c: &'a mut [f32],
    add: bool,
}

impl<const TRANSPOSED: bool> Vectorized for Block<'_, TRANSPOSED> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        const { assert!(PANEL.is_multiple_of(2 * V::LANES) && V::TILE_ROWS <= 8) };
        let Block {
            rows,
            terms,
            stride,
            add,
            ..
        } = self;
        let [row_stride, term_stride] = if TRANSPOSED { [1, stride] } else { [stride, 1] };
        assert!(rows > 0 && terms > 0);
        assert!(self.a.len() > (rows - 1) * row_stride + (terms - 1) * term_stride);
        assert!(self.b.len() >= terms * PANEL && self.c.len() >= rows * PANEL);
        for row in (0..rows).step_by(V::TILE_ROWS) {
            for column in (0..PANEL).step_by(2 * V::LANES) {
                // SAFETY: the assertions above check that all elements are within the slices.
                unsafe {
                    let a = self.a.as_ptr().add(row * row_stride);
                    let b = self.b.as_ptr().add(column);
                    let c = self.c.as_mut_ptr().add(row * PANEL + column);
                    match V::TILE_ROWS.min(rows - row) {
                        8 => tile::<V, 8, TRANSPOSED>(terms, a, stride, b, c, add),
                        7 => tile::<V, 7, TRANSPOSED>(terms, a, stride, b, c, add),
                        6 => tile::<V, 6, TRANSPOSED>(terms, a, stride, b, c, add),
                        5 => tile::<V, 5, TRANSPOSED>(terms, a, stride, b, c, add),
                        4 => tile::<V, 4, TRANSPOSED>(terms, a, stride, b, c, add),
                        3 => tile::<V, 3, TRANSPOSED>(terms, a, stride, b, c, add),
                        2 => tile::<V, 2, TRANSPOSED>(terms, a, stride, b, c, add),
                        _ => tile::<V, 1, TRANSPOSED>(terms, a, stride, b, c, add),
                    }
                }
            }
        }
    }
}

/// `c [ROWS, two registers] (+)= a b`. `b` and `c` are in panels.
///
/// # Safety
/// `ROWS` rows and `terms` terms must be valid at the pointers, and the processor must support `V`.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const TRANSPOSED: bool>(
    terms: usize,
    a: *const f32,
    stride: usize,
    b: *const f32,
    c: *mut f32,
    add: bool,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        for term in 0..terms {
            let b = b.add(term * PANEL);
            let right = [V::load(b), V::load(b.add(V::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let index = if TRANSPOSED {
                    term * stride + row
                } else {
                    row * stride + term
                };
                let left = V::splat(*a.add(index));
                *sums = [
                    left.mul_add(right[0], sums[0]),
                    left.mul_add(right[1], sums[1]),
                ];
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let to = c.add(row * PANEL + half * V::LANES);
                let sum = if add { sum.add(V::load(to)) } else { sum };
                sum.store(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vector;
    use super::*;
    use crate::philox::Philox;

    /// Compares numbers of rows below, at and above whole tiles with a float64 loop.
    fn check<const TRANSPOSED: bool>() {
        let mut rng = Philox::new(11, [0; 3]);
        for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 23, 64] {
            for (terms, add) in [(1, false), (2, true), (7, false), (64, true), (256, false)] {
                let (of_rows, of_terms) = if TRANSPOSED {
                    (1, rows + 3)
                } else {
                    (terms + 3, 1)
                };
                let mut numbers = |len| -> Vec<f32> { (0..len).map(|_| rng.normal()).collect() };
                let a = numbers((rows - 1) * of_rows + (terms - 1) * of_terms + 1);
                let b = numbers(terms * PANEL);
                let before = numbers(rows * PANEL);
                for name in vector::REGISTERS {
                    let mut c = before.clone();
                    let block = Block::<TRANSPOSED> {
                        rows,
                        terms,
                        a: &a,
                        stride: of_rows.max(of_terms),
                        b: &b,
                        c: &mut c,
                        add,
                    };
                    if !vector::run_with(name, block) {
                        continue;
                    }
                    for (at, &found) in c.iter().enumerate() {
                        let (row, column) = (at / PANEL, at % PANEL);
                        let (mut sum, mut size) = if add {
                            (f64::from(before[at]), f64::from(before[at].abs()))
                        } else {
                            (0.0, 0.0)
                        };
                        for term in 0..terms {
                            let left = f64::from(a[row * of_rows + term * of_terms]);
                            let product = left * f64::from(b[term * PANEL + column]);
                            (sum, size) = (sum + product, size + product.abs());
                        }
                        let bound = 4.0 * ((terms + 1) as f64).sqrt() * 2f64.powi(-24) * size;
                        assert!(
                            (f64::from(found) - sum).abs() <= bound,
                            "{name}: {rows} rows, {terms} terms, ({row}, {column}): {found}, expected {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_set_of_instructions_agrees_with_float64() {
        check::<false>();
        check::<true>();
    }
}
