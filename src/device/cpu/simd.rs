//! Wider vector instructions than the build asks for, where the processor has them.

/// Runs `body`, which must be inlined, as AVX2 code where the processor has it: a plain x86-64 build has only SSE2.
#[inline(always)]
pub(crate) fn simd<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as the line above found.
            return unsafe { avx2(body) };
        }
    }
    body()
}
