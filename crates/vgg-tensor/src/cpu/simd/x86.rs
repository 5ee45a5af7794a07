//! Vectors of x86-64. Only [`crate::cpu::Isa`] uses these types, after it has detected their features.

use std::arch::x86_64::*;

use super::Vector;

/// A 256-bit register of AVX2 with FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Fma(__m256);

// SAFETY, for every block in this implementation: the type is used only inside functions compiled with AVX2
// and FMA, on processors that have them; memory is the caller's promise.
impl Vector for Avx2Fma {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: features as above; the caller promises eight readable values.
        Avx2Fma(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: features as above; the caller promises eight writable values.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_add_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn sub(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_sub_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn mul(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_mul_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_fmadd_ps(self.0, x.0, y.0) })
    }

    #[inline(always)]
    fn max_nan_first(self, x: Self) -> Self {
        // The instruction returns its second operand unless the first is larger, also if either is NaN.
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_max_ps(x.0, self.0) })
    }

    #[inline(always)]
    fn mask_gt_zero(self, y: Self) -> Self {
        // SAFETY: features as above.
        Avx2Fma(unsafe { _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GT_OQ>(y.0, _mm256_setzero_ps())) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // The same order as the default implementation.
        // SAFETY: features as above.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// A 512-bit register of AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY, for every block in this implementation: as above, with AVX-512F.
impl Vector for Avx512 {
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: features as above; the caller promises sixteen readable values.
        Avx512(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: features as above; the caller promises sixteen writable values.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn add(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_add_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn sub(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_sub_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn mul(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_mul_ps(self.0, x.0) })
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, x.0, y.0) })
    }

    #[inline(always)]
    fn max_nan_first(self, x: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe { _mm512_max_ps(x.0, self.0) })
    }

    #[inline(always)]
    fn mask_gt_zero(self, y: Self) -> Self {
        // SAFETY: features as above.
        Avx512(unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(y.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(mask, self.0)
        })
    }
}
