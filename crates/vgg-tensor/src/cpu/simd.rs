//! Vectors of eight `f32`: one kernel body is written over [`Vector`] and compiled per instruction set.

/// Values in a vector, the same for every instruction set so far.
pub(crate) const LANES: usize = 8;

/// Eight `f32` values.
pub(crate) trait Vector: Copy {
    /// All lanes the same.
    fn splat(x: f32) -> Self;

    /// Reads eight values, unaligned.
    ///
    /// # Safety
    /// `from` must be readable for eight values.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes eight values, unaligned.
    ///
    /// # Safety
    /// `to` must be writable for eight values.
    unsafe fn store(self, to: *mut f32);

    /// `self * x + y`, rounded once where the instruction set can.
    fn mul_add(self, x: Self, y: Self) -> Self;
}

/// A computation over vectors; implementors mark `run` as `#[inline(always)]`.
pub(crate) trait VectorKernel {
    /// Runs with vectors of one instruction set.
    fn run<V: Vector>(self);
}

/// Plain arrays, which the compiler turns into whatever the baseline has.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Vector for Portable {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises eight readable values.
        Portable(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises eight writable values.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * x.0[i] + y.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx2Fma;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps};

    /// A 256-bit register. Only [`super::super::Isa::run`] hands the type out, after both features were seen.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2Fma(__m256);

    impl Vector for Avx2Fma {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: the type is used only inside functions with AVX2 and FMA enabled.
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
        fn mul_add(self, x: Self, y: Self) -> Self {
            // SAFETY: features as above.
            Avx2Fma(unsafe { _mm256_fmadd_ps(self.0, x.0, y.0) })
        }
    }
}
