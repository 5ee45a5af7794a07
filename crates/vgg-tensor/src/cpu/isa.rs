//! The instruction set, found at run time: the binary is built for the plain baseline of its architecture.

use super::simd::{Portable, VectorKernel};

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Isa {
    /// The best instruction set of this processor.
    pub(crate) fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return Isa::Avx2Fma;
        }
        Isa::Portable
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma => "avx2+fma",
            Isa::Portable => "portable",
        }
    }

    /// Runs a kernel with this instruction set's vectors.
    pub(crate) fn run<K: VectorKernel>(self, kernel: K) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this value exists only where `detect` saw both features.
            Isa::Avx2Fma => unsafe { run_avx2_fma(kernel) },
            Isa::Portable => kernel.run::<Portable>(),
        }
    }
}

/// The body of a kernel compiled with AVX2 and FMA, for it is inlined here.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2_fma<K: VectorKernel>(kernel: K) {
    kernel.run::<super::simd::Avx2Fma>();
}
