//! Detection of the instruction set at run time; the binary is compiled for the baseline of its architecture.

use super::simd::{LANES, VectorKernel};

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// x86-64 with AVX-512F, AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    /// 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain loops, vectorised by the compiler.
    Portable,
    /// As `Portable` with vectors of 16 values, the length of AVX-512.
    PortableWide,
}

impl Isa {
    /// The instruction sets that this processor supports, best first.
    pub(crate) fn available() -> impl Iterator<Item = Isa> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
            let avx512 = avx2 && std::is_x86_feature_detected!("avx512f");
            [avx512.then_some(Isa::Avx512), avx2.then_some(Isa::Avx2Fma)]
        };
        #[cfg(target_arch = "aarch64")]
        let special = [Some(Isa::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let special: [Option<Isa>; 0] = [];
        special.into_iter().flatten().chain([Isa::Portable, Isa::PortableWide])
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512f",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma => "avx2+fma",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            Isa::Portable => "portable",
            Isa::PortableWide => "portable-16",
        }
    }

    /// Number of lanes in the vectors of [`Isa::run_wide`].
    pub(crate) fn wide_lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 16,
            Isa::PortableWide => 16,
            _ => LANES,
        }
    }

    /// Runs a kernel with vectors of [`LANES`] lanes.
    pub(crate) fn run<K: VectorKernel>(self, kernel: K) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these values exist only where `available` detected the features.
            Isa::Avx512 | Isa::Avx2Fma => unsafe { run_avx2_fma(kernel) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => kernel.run::<super::simd::Neon>(),
            Isa::Portable | Isa::PortableWide => kernel.run::<super::simd::Portable<LANES>>(),
        }
    }

    /// Runs a kernel with the widest vectors.
    pub(crate) fn run_wide<K: VectorKernel>(self, kernel: K) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this value exists only where `available` detected the features.
            Isa::Avx512 => unsafe { run_avx512(kernel) },
            Isa::PortableWide => kernel.run::<super::simd::Portable<16>>(),
            _ => self.run(kernel),
        }
    }
}

/// Compiles a kernel with AVX2 and FMA: its body is inlined into this function.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2_fma<K: VectorKernel>(kernel: K) {
    kernel.run::<super::simd::Avx2Fma>();
}

/// As [`run_avx2_fma`] with AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn run_avx512<K: VectorKernel>(kernel: K) {
    kernel.run::<super::simd::Avx512>();
}
