//! SIMD vectors of `f32`: a kernel is written once over [`Vector`] and compiled for each instruction set.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2Fma, Avx512};

/// Number of lanes in every instruction set except AVX-512.
pub(crate) const LANES: usize = 8;

/// A SIMD vector of `f32`.
pub(crate) trait Vector: Copy {
    /// Number of lanes: 8 or 16.
    const LANES: usize;

    /// Sets all lanes to `x`.
    fn splat(x: f32) -> Self;

    /// Loads a vector from an unaligned address.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` values.
    unsafe fn load(from: *const f32) -> Self;

    /// Stores the vector to an unaligned address.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` values.
    unsafe fn store(self, to: *mut f32);

    /// `self + x`.
    fn add(self, x: Self) -> Self;

    /// `self - x`.
    fn sub(self, x: Self) -> Self;

    /// `self * x`.
    fn mul(self, x: Self) -> Self;

    /// `self * x + y`, rounded once if the instruction set has a fused multiply-add.
    fn mul_add(self, x: Self, y: Self) -> Self;

    /// `x` where `x > self`, else `self`: ties and a NaN in either operand keep `self`.
    fn max_nan_first(self, x: Self) -> Self;

    /// `self` where `y > 0`, else 0.
    fn mask_gt_zero(self, y: Self) -> Self;

    /// `self * x + y` with a scalar factor.
    #[inline(always)]
    fn mul_add_scalar(self, x: f32, y: Self) -> Self {
        self.mul_add(Self::splat(x), y)
    }

    /// Loads the first `n` values, at most `LANES`; the other lanes are 0.
    ///
    /// # Safety
    /// `from` must be readable for `n` values.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        let mut whole = [0.0f32; 16];
        // SAFETY: `n` values are readable by the caller's promise, and `whole` has room for any vector.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), n.min(Self::LANES));
            Self::load(whole.as_ptr())
        }
    }

    /// Stores the first `n` lanes, at most `LANES`.
    ///
    /// # Safety
    /// `to` must be writable for `n` values.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        let mut whole = [0.0f32; 16];
        // SAFETY: `whole` has room for any vector, `to` for `n` values by the caller's promise.
        unsafe {
            self.store(whole.as_mut_ptr());
            std::ptr::copy_nonoverlapping(whole.as_ptr(), to, n.min(Self::LANES));
        }
    }

    /// Sum of the lanes: adds the upper half to the lower half until one lane remains.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut v = [0.0f32; 16];
        // SAFETY: `v` has room for any vector.
        unsafe { self.store(v.as_mut_ptr()) };
        let mut n = Self::LANES;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                v[i] += v[i + n];
            }
        }
        v[0]
    }
}

/// A kernel that is generic over the vector type; implementors mark `run` as `#[inline(always)]`.
pub(crate) trait VectorKernel {
    /// Runs with the vectors of one instruction set.
    fn run<V: Vector>(self);
}

/// Prefetches a cache line on x86-64; does nothing on other architectures.
#[inline(always)]
pub(crate) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(at.cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches a cache line to write it on x86-64; does nothing on other architectures.
#[inline(always)]
pub(crate) fn prefetch_write(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless; processors without the instruction treat it as a no-op.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
