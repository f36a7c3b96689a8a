//! Vector registers of floats: the widest that the processor supports, selected at run time.

/// Side of the squares that [`Vector::transpose`] transposes.
pub(super) const SIDE: usize = 8;

/// A vector register of floats. Its methods are inlined into a caller that is compiled for its
/// instruction set: see [`run`].
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Rows of two registers per tile of a product, as many as fit the registers of the processor.
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

    /// Transposes [`SIDE`] x [`SIDE`] floats between rows with strides of `from_width` and
    /// `to_width`.
    ///
    /// # Safety
    /// The rows must be readable and writable.
    unsafe fn transpose_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize);

    /// As [`Vector::transpose_at`], between slices.
    ///
    /// # Panics
    /// If a slice is too short.
    #[inline(always)]
    fn transpose(from: &[f32], from_width: usize, to: &mut [f32], to_width: usize) {
        let needed = |width: usize| (SIDE - 1) * width + SIDE;
        assert!(from.len() >= needed(from_width) && to.len() >= needed(to_width));
        // SAFETY: the assertion above.
        unsafe { Self::transpose_at(from.as_ptr(), from_width, to.as_mut_ptr(), to_width) }
    }

    /// `self + factor x`
    #[inline(always)]
    fn add_scaled(self, factor: f32, x: Self) -> Self {
        Self::splat(factor).mul_add(x, self)
    }

    /// `factor self`
    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        Self::splat(factor).mul(self)
    }

    /// Loads the first `LANES` floats of a slice. Panics if it is shorter.
    #[inline(always)]
    fn from_slice(from: &[f32]) -> Self {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has `LANES` floats.
        unsafe { Self::load(from.as_ptr()) }
    }

    /// Stores to the first `LANES` floats of a slice. Panics if it is shorter.
    #[inline(always)]
    fn to_slice(self, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has `LANES` floats.
        unsafe { self.store(to.as_mut_ptr()) }
    }
}

/// A computation that is generic over the vector register.
pub(super) trait Vectorized {
    /// Must be `#[inline(always)]`, like all functions that it calls. Only then is it compiled for
    /// the instruction set of `V`.
    fn run<V: Vector>(self);
}

/// Runs `computation` with the widest registers of the processor.
pub(super) fn run(computation: impl Vectorized) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor supports AVX-512F.
            return unsafe { x86::avx512(computation) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor supports AVX2 and FMA.
            return unsafe { x86::avx2(computation) };
        }
    }
    portable(computation);
}

fn portable(computation: impl Vectorized) {
    computation.run::<[f32; 8]>();
}

/// Eight floats, which the compiler vectorises for the target of the build.
impl Vector for [f32; 8] {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees it, and an array has the alignment of its elements.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn transpose_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        for row in 0..SIDE {
            for column in 0..SIDE {
                // SAFETY: the caller guarantees it.
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
            // aarch64 has an instruction for it. On other targets, `mul_add` may be a library call.
            *c = if cfg!(target_arch = "aarch64") {
                self[i].mul_add(b[i], *c)
            } else {
                self[i] * b[i] + *c
            };
        }
        c
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Vector, Vectorized};

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(computation: impl Vectorized) {
        computation.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(computation: impl Vectorized) {
        computation.run::<Avx2>();
    }

    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    /// Transposes with shuffles within the 128-bit halves of registers. A register holds half a row
    /// in each half: of rows 0 and 4, 1 and 5, and so on.
    ///
    /// # Safety
    /// As for [`Vector::transpose_at`], and the processor must support AVX.
    #[inline(always)]
    unsafe fn transpose_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        // SAFETY: the caller guarantees it.
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

    // SAFETY of every block below: only the two functions above use these types, and they only run
    // on a processor that supports the instructions.
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
        unsafe fn transpose_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
            unsafe { transpose_at(from, from_width, to, to_width) }
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
        unsafe fn transpose_at(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
            unsafe { transpose_at(from, from_width, to, to_width) }
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

/// The names that [`run_with`] accepts.
#[cfg(test)]
pub(super) const REGISTERS: [&str; 3] = ["portable", "AVX2", "AVX-512"];

/// Runs `computation` with the named registers, and returns whether the processor supports them.
#[cfg(test)]
pub(super) fn run_with(register: &str, computation: impl Vectorized) -> bool {
    match register {
        "portable" => portable(computation),
        #[cfg(target_arch = "x86_64")]
        "AVX2" if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            // SAFETY: the processor supports AVX2 and FMA.
            unsafe { x86::avx2(computation) }
        }
        #[cfg(target_arch = "x86_64")]
        "AVX-512" if is_x86_feature_detected!("avx512f") => {
            // SAFETY: the processor supports AVX-512F.
            unsafe { x86::avx512(computation) }
        }
        _ => return false,
    }
    true
}
