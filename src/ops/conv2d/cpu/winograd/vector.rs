//! Registers of floats: the widest that the processor has.

/// Side of the squares that [`Vector::turn`] transposes.
pub(super) const SIDE: usize = 8;

/// A register of floats. Its functions are inlined into those of [`run`], which have its instructions.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Rows of two registers that a tile of a product has: as many as the processor has registers for.
    const TILE_ROWS: usize;
    fn splat(x: f32) -> Self;
    /// # Safety
    /// `LANES` floats must be readable there.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// `LANES` floats must be writable there.
    unsafe fn store(self, to: *mut f32);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self b + c`
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// Transposes [`SIDE`] rows of as many floats; those of `from` lie `from_width` apart, those of `to` `to_width`.
    ///
    /// # Safety
    /// The rows must be readable and writable.
    unsafe fn turn_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize);

    /// As [`Vector::turn_at`], from the first rows of a slice into those of another, which must have them.
    #[inline(always)]
    fn turn(from: &[f32], from_width: usize, to: &mut [f32], to_width: usize) {
        let needed = |width: usize| (SIDE - 1) * width + SIDE;
        assert!(from.len() >= needed(from_width) && to.len() >= needed(to_width));
        // SAFETY: the line above.
        unsafe { Self::turn_at(from.as_ptr(), from_width, to.as_mut_ptr(), to_width) }
    }

    /// `self + factor x`
    #[inline(always)]
    fn plus(self, factor: f32, x: Self) -> Self {
        Self::splat(factor).mul_add(x, self)
    }

    /// `factor self`
    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        Self::splat(factor).mul(self)
    }

    /// The first floats of a slice, which must have as many.
    #[inline(always)]
    fn first_of(from: &[f32]) -> Self {
        let from = &from[..Self::LANES];
        // SAFETY: the line above.
        unsafe { Self::load(from.as_ptr()) }
    }

    /// Accumulate the first floats of a slice, which must have as many.
    #[inline(always)]
    fn put(self, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the line above.
        unsafe { self.store(to.as_mut_ptr()) }
    }
}

/// Something to do with registers, whatever their width.
pub(super) trait Work {
    /// Must be inlined always, with all that it calls: only then does it have the processor's instructions.
    fn run<V: Vector>(self);
}

/// Does `work` with the widest registers of the processor.
pub(super) fn run(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { x86::avx512(work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has both.
            return unsafe { x86::avx2(work) };
        }
    }
    portable(work);
}

fn portable(work: impl Work) {
    work.run::<[f32; 8]>();
}

/// Whatever the compiler makes of eight floats.
impl Vector for [f32; 8] {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

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
    unsafe fn turn_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        for row in 0..SIDE {
            for column in 0..SIDE {
                // SAFETY: the caller's promise.
                unsafe { *to.add(column * to_width + row) = *from.add(row * from_width + column) };
            }
        }
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(x, y)| *x += y);
        self
    }

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(x, y)| *x -= y);
        self
    }

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(x, y)| *x *= y);
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

    use super::{Vector, Work};

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(work: impl Work) {
        work.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(work: impl Work) {
        work.run::<Avx2>();
    }

    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    /// By shuffles inside the halves of registers of eight, each half loaded by itself: rows 0 and 4, 1 and 5, and so
    /// on.
    ///
    /// # Safety
    /// As for [`Vector::turn_at`], and the processor must have AVX.
    #[inline(always)]
    unsafe fn turn_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            for half in [0, 4] {
                let mut rows = [_mm256_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = from.add(i * from_width + half);
                    let fourth_after = from.add(4 * from_width);
                    *row = _mm256_set_m128(_mm_loadu_ps(fourth_after), _mm_loadu_ps(from));
                }
                let pairs = [
                    _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1])),
                    _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3])),
                    _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1])),
                    _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3])),
                ];
                let columns = [
                    _mm256_unpacklo_pd(pairs[0], pairs[1]),
                    _mm256_unpackhi_pd(pairs[0], pairs[1]),
                    _mm256_unpacklo_pd(pairs[2], pairs[3]),
                    _mm256_unpackhi_pd(pairs[2], pairs[3]),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    let to = to.add((half + i) * to_width);
                    _mm256_storeu_ps(to, _mm256_castpd_ps(column));
                }
            }
        }
    }

    // SAFETY, of every block below: these values are made in the two functions above alone, which the processor runs.
    impl Vector for Avx512 {
        const LANES: usize = 16;
        const TILE_ROWS: usize = 8;

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
        unsafe fn turn_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
            unsafe { turn_at(from, from_width, to, to_width) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
    }

    impl Vector for Avx2 {
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;

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
        unsafe fn turn_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
            unsafe { turn_at(from, from_width, to, to_width) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Avx2(unsafe { _mm256_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Avx2(unsafe { _mm256_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
    }
}

/// The names that [`run_with`] knows.
#[cfg(test)]
pub(super) const REGISTERS: [&str; 3] = ["portable", "AVX2", "AVX-512"];

/// Does `work` with a certain register; says whether the processor has it.
#[cfg(test)]
pub(super) fn run_with(register: &str, work: impl Work) -> bool {
    match register {
        "portable" => portable(work),
        #[cfg(target_arch = "x86_64")]
        "AVX2" if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            // SAFETY: the processor has both.
            unsafe { x86::avx2(work) }
        }
        #[cfg(target_arch = "x86_64")]
        "AVX-512" if is_x86_feature_detected!("avx512f") => {
            // SAFETY: the processor has it.
            unsafe { x86::avx512(work) }
        }
        _ => return false,
    }
    true
}
