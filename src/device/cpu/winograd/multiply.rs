//! The products at the 36 points, of matrices that the transforms wrote as they are read here: the right operand and the
//! result in panels of 32 columns, the left operand row by row. So nothing is packed, and a product of matrices as small as
//! these runs at the processor's rate: a tile of the result stays in registers, 8 rows x 32 columns with AVX-512, 6 x 16
//! with AVX2, and each term of it is a row of the panel by one number of each of its rows.

use super::layout::{Matrices, PANEL};
use super::transforms::PRODUCTS;
use crate::device::cpu::product::Into;

/// Terms that are added up before a tile goes back: a panel of them fills two thirds of a first-level cache of 48 KiB.
const TERMS: usize = 256;

/// `c (+)= a b` at every point, with `a` `[rows of c, terms]`, `b` `[terms, columns of c]`.
pub(super) fn multiply(
    a: (Matrices, &[f32]),
    b: (Matrices, &[f32]),
    into: Into,
    c: (Matrices, &mut [f32]),
) {
    assert!(a.0.rows == c.0.rows && b.0.rows <= a.0.columns && a.0.panel == a.0.columns);
    run::<false>(a, b, into, c);
}

/// `c (+)= a^T b` at every point, with `a` `[terms, rows of c]`, `b` `[terms, columns of c]`.
pub(super) fn multiply_transposed(
    a: (Matrices, &[f32]),
    b: (Matrices, &[f32]),
    into: Into,
    c: (Matrices, &mut [f32]),
) {
    assert!(a.0.rows == b.0.rows && c.0.rows <= a.0.columns && a.0.panel == a.0.columns);
    run::<true>(a, b, into, c);
}

fn run<const TRANSPOSED: bool>(
    (left, a): (Matrices, &[f32]),
    (right, b): (Matrices, &[f32]),
    into: Into,
    (result, c): (Matrices, &mut [f32]),
) {
    assert!(right.columns == result.columns && right.panel == PANEL && result.panel == PANEL);
    assert!(a.len() >= left.len() && b.len() >= right.len() && c.len() >= result.len());
    for first in (0..right.rows).step_by(TERMS) {
        let add = into == Into::Add || first > 0;
        for (panel, point) in (0..result.columns / PANEL)
            .flat_map(|panel| (0..PRODUCTS).map(move |point| (panel, point)))
        {
            let column = panel * PANEL;
            let a = &a[left.at(point, 0, 0)..];
            let block = Block {
                rows: result.rows,
                terms: TERMS.min(right.rows - first),
                a: if TRANSPOSED {
                    &a[first * left.panel..]
                } else {
                    &a[first..]
                },
                stride: left.panel,
                b: &b[right.at(point, first, column)..],
                c: &mut c[result.at(point, 0, column)..],
                add,
            };
            // SAFETY: the assertions above: each matrix lies in its slice, and the block ends where it does.
            unsafe { block.multiply::<TRANSPOSED>() };
        }
    }
}

/// A panel of the result, and what is added up in it.
struct Block<'a> {
    rows: usize,
    terms: usize,
    a: &'a [f32],
    /// From one row of `a` to the next.
    stride: usize,
    b: &'a [f32],
    c: &'a mut [f32],
    add: bool,
}

impl Block<'_> {
    /// # Safety
    /// `a`, `b` and `c` must hold the block: `rows` and `terms` of them, as `TRANSPOSED` says.
    unsafe fn multiply<const TRANSPOSED: bool>(self) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has it; the rest is the caller's promise.
                return unsafe { x86::avx512::<TRANSPOSED>(self) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                return unsafe { x86::avx2::<TRANSPOSED>(self) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { portable::<TRANSPOSED>(self) };
    }

    /// Tiles of at most `ROWS` rows and two vectors of columns.
    ///
    /// # Safety
    /// As for `multiply`, and the processor must have the vector.
    #[inline(always)]
    unsafe fn tiles<V: Vector, const ROWS: usize, const TRANSPOSED: bool>(self) {
        for row in (0..self.rows).step_by(ROWS) {
            for column in (0..PANEL).step_by(2 * V::LANES) {
                let from = if TRANSPOSED { row } else { row * self.stride };
                let terms = self.terms;
                // SAFETY: the caller's promise.
                unsafe {
                    let a = self.a.as_ptr().add(from);
                    let b = self.b.as_ptr().add(column);
                    let c = self.c.as_mut_ptr().add(row * PANEL + column);
                    let (stride, add) = (self.stride, self.add);
                    match ROWS.min(self.rows - row) {
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

/// # Safety
/// As for [`Block::multiply`].
unsafe fn portable<const TRANSPOSED: bool>(block: Block<'_>) {
    // SAFETY: the caller's promise; any processor has arrays.
    unsafe { block.tiles::<[f32; 8], 4, TRANSPOSED>() }
}

/// `c [ROWS, two vectors] (+)= a b`, with rows of `c` and `b` in panels.
///
/// # Safety
/// The pointers must hold `ROWS` rows and `terms` terms, and the processor must have the vector.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const TRANSPOSED: bool>(
    terms: usize,
    a: *const f32,
    stride: usize,
    b: *const f32,
    c: *mut f32,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        for term in 0..terms {
            let b = b.add(term * PANEL);
            let right = [V::load(b), V::load(b.add(V::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let at = if TRANSPOSED {
                    term * stride + row
                } else {
                    row * stride + term
                };
                let left = V::splat(*a.add(at));
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

/// A register of floats.
trait Vector: Copy {
    const LANES: usize;
    fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    fn add(self, other: Self) -> Self;
    /// `self b + c`
    fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Whatever the compiler makes of eight floats.
impl Vector for [f32; 8] {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array has the alignment of its elements.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(x, y)| *x += y);
        self
    }

    #[inline(always)]
    fn mul_add(self, b: Self, mut c: Self) -> Self {
        for (i, c) in c.iter_mut().enumerate() {
            // One instruction there; elsewhere it may be a call.
            *c = match cfg!(target_arch = "aarch64") {
                true => self[i].mul_add(b[i], *c),
                false => self[i] * b[i] + *c,
            };
        }
        c
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, Vector};

    /// # Safety
    /// As for [`Block::multiply`]; the processor must have AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512<const TRANSPOSED: bool>(block: Block<'_>) {
        // SAFETY: the caller's promise.
        unsafe { block.tiles::<Avx512, 8, TRANSPOSED>() }
    }

    /// # Safety
    /// As for [`Block::multiply`]; the processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const TRANSPOSED: bool>(block: Block<'_>) {
        // SAFETY: the caller's promise.
        unsafe { block.tiles::<Avx2, 6, TRANSPOSED>() }
    }

    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    // SAFETY, of every block below: these values are made in the two functions above alone, which the processor runs.
    impl Vector for Avx512 {
        const LANES: usize = 16;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Avx512(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Avx512(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
    }

    impl Vector for Avx2 {
        const LANES: usize = 8;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Avx2(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Avx2(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::philox::Philox;

    type Path = unsafe fn(Block<'_>);

    /// Every set of instructions that this processor has, for an `a` as it stands or transposed.
    fn paths<const TRANSPOSED: bool>() -> Vec<(&'static str, Path)> {
        let mut paths: Vec<(&'static str, Path)> = vec![("portable", portable::<TRANSPOSED>)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(("AVX2", x86::avx2::<TRANSPOSED>));
            }
            if is_x86_feature_detected!("avx512f") {
                paths.push(("AVX-512", x86::avx512::<TRANSPOSED>));
            }
        }
        paths
    }

    /// Rows that fill no tile, one, and several with a rest; each against a float64 loop.
    fn check<const TRANSPOSED: bool>() {
        let mut rng = Philox::new(11, [0; 3]);
        for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 23, 64] {
            for (terms, add) in [(1, false), (2, true), (7, false), (64, true), (256, false)] {
                let (of_rows, of_terms) = match TRANSPOSED {
                    false => (terms + 3, 1),
                    true => (1, rows + 3),
                };
                let mut numbers = |len| -> Vec<f32> { (0..len).map(|_| rng.normal()).collect() };
                let a = numbers((rows - 1) * of_rows + (terms - 1) * of_terms + 1);
                let b = numbers(terms * PANEL);
                let before = numbers(rows * PANEL);
                for (name, path) in paths::<TRANSPOSED>() {
                    let mut c = before.clone();
                    let block = Block {
                        rows,
                        terms,
                        a: &a,
                        stride: of_rows.max(of_terms),
                        b: &b,
                        c: &mut c,
                        add,
                    };
                    // SAFETY: the slices were made for these sizes, and the processor has the instructions.
                    unsafe { path(block) };
                    for (at, &found) in c.iter().enumerate() {
                        let (row, column) = (at / PANEL, at % PANEL);
                        let (mut sum, mut size) = match add {
                            true => (f64::from(before[at]), f64::from(before[at].abs())),
                            false => (0.0, 0.0),
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
