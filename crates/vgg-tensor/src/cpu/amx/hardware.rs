//! The AMX unit of x86-64 processors. Its instructions are written as assembly, because Rust has no stable intrinsics
//! for them.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_storeu_si512,
};

use super::super::bf16::{BLOCK, Line};
use super::{Overlap, Product, STEP, Sums, TILE, TileUnit};

/// The tiles of this thread. Tiles 0 to 3 hold sums, 4 and 5 values of A, 6 and 7 values of B.
#[derive(Clone, Copy)]
pub(super) struct Amx;

/// `CPUID.(EAX=7, ECX=0):EDX`.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;

/// Checks that the processor has AMX for bf16, and asks Linux for the permission to use it.
pub(super) fn detect() -> Result<(), String> {
    let features = __cpuid_count(7, 0).edx;
    let missing = [(AMX_TILE, "amx-tile"), (AMX_BF16, "amx-bf16")];
    let mut missing: Vec<&str> =
        missing.into_iter().filter(|(bit, _)| features & bit == 0).map(|(_, name)| name).collect();
    if !has_vectors() {
        missing.push("avx512-bf16");
    }
    if !missing.is_empty() {
        return Err(format!(
            "a CPU needs AMX, and this processor, or its virtual machine, does not offer {}",
            missing.join(", ")
        ));
    }
    permission()
}

/// Whether the processor has the vector instructions of this unit's kernels.
pub(super) fn has_vectors() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("fma")
}

/// Asks Linux for the permission to use tiles, once for all threads of the process.
fn permission() -> Result<(), String> {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this system call takes two numbers and changes nothing but the permission.
    let status = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if status == 0 {
        return Ok(());
    }
    let reason = std::io::Error::last_os_error();
    Err(format!(
        "a CPU needs AMX, and the system does not permit its use: {reason} (it needs Linux 5.16 or later)"
    ))
}

/// Operand of `ldtilecfg`: bytes per row and rows of each tile.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileUnit for Amx {
    #[inline(always)]
    fn begin(rows: usize) -> Amx {
        if rows == 0 {
            return Amx;
        }
        let mut config =
            TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(64);
        config.rows[..6].fill(rows as u8);
        config.rows[6..8].fill(TILE as u8);
        // SAFETY: the processor has tiles, by `detect`; the configuration is valid for palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags)) };
        Amx
    }

    #[inline(always)]
    fn end(self, rows: usize) {
        if rows > 0 {
            // SAFETY: as above.
            unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
        }
    }

    #[inline(always)]
    unsafe fn multiply(self, product: &Product, sums: &mut Sums, add: bool, overlap: &mut impl Overlap) {
        let upper = sums.as_mut_ptr();
        let lower = upper.wrapping_add(1);
        let pitch = size_of::<[f32; BLOCK]>();
        if add {
            // SAFETY: the processor has tiles; the sums are two tiles of 16 rows of two tile rows each.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{upper} + {pitch}]",
                    "tileloadd tmm1, [{upper} + {pitch} + 64]",
                    "tileloadd tmm2, [{lower} + {pitch}]",
                    "tileloadd tmm3, [{lower} + {pitch} + 64]",
                    upper = in(reg) upper, lower = in(reg) lower, pitch = in(reg) pitch,
                    options(nostack, preserves_flags),
                );
            }
        } else {
            // SAFETY: the processor has tiles.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, preserves_flags),
                );
            }
        }
        let (mut b, a_pitch) = (product.b, product.a_pitch);
        let mut of_outer = product.a;
        for _ in 0..product.outer {
            let mut of_row = of_outer;
            for _ in 0..product.window_rows {
                let [mut a0, mut a1] = of_row;
                for _ in 0..product.window_columns {
                    // SAFETY: as above; A and B are readable by the caller's promise.
                    unsafe {
                        asm!(
                            "tileloadd tmm4, [{a0} + {a_pitch}]",
                            "tileloadd tmm6, [{b} + {b_pitch}]",
                            "tileloadd tmm5, [{a1} + {a_pitch}]",
                            "tileloadd tmm7, [{b} + {b_pitch} + 1024]",
                            "tdpbf16ps tmm0, tmm4, tmm6",
                            "tdpbf16ps tmm1, tmm4, tmm7",
                            "tdpbf16ps tmm2, tmm5, tmm6",
                            "tdpbf16ps tmm3, tmm5, tmm7",
                            a0 = in(reg) a0, a1 = in(reg) a1, a_pitch = in(reg) a_pitch,
                            b = in(reg) b, b_pitch = in(reg) 64usize,
                            options(nostack, preserves_flags, readonly),
                        );
                    }
                    [a0, a1] = [a0, a1].map(|a| a.wrapping_byte_add(64));
                    b = b.wrapping_add(STEP);
                    overlap.step();
                }
                of_row = of_row.map(|a| a.wrapping_byte_add(product.row_stride));
            }
            of_outer = of_outer.map(|a| a.wrapping_byte_add(product.outer_stride));
        }
        // SAFETY: as for the loads of the sums.
        unsafe {
            asm!(
                "tilestored [{upper} + {pitch}], tmm0",
                "tilestored [{upper} + {pitch} + 64], tmm1",
                "tilestored [{lower} + {pitch}], tmm2",
                "tilestored [{lower} + {pitch} + 64], tmm3",
                upper = in(reg) upper, lower = in(reg) lower, pitch = in(reg) pitch,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn round(self, sums: &[f32; BLOCK], to: &mut Line) {
        // SAFETY: `detect` has found AVX512-BF16, and both arrays have 32 values.
        unsafe {
            let low = _mm512_loadu_ps(sums.as_ptr());
            let high = _mm512_loadu_ps(sums.as_ptr().add(BLOCK / 2));
            let line = _mm512_cvtne2ps_pbh(high, low);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Nothing, TileIsa, TileKernel, emulator};
    use super::*;

    struct Multiply<'a> {
        product: Product,
        sums: &'a mut Sums,
        line: &'a mut Line,
    }

    impl TileKernel for Multiply<'_> {
        fn run<U: TileUnit>(self, unit: U) {
            // SAFETY: the test allocates all tiles.
            unsafe {
                unit.multiply(&self.product, self.sums, false, &mut Nothing);
                unit.multiply(&self.product, self.sums, true, &mut Nothing);
            }
            unit.round(&self.sums[1][2], self.line);
        }
    }

    /// Both units round alike, so the bits must be equal. Where AMX is missing, a signal handler computes it.
    #[test]
    fn hardware_and_model_agree_bitwise() {
        if !emulator::install() {
            vgg_testkit::skip("avx512-bf16", &"the vector instructions of the tile unit's kernels");
            return;
        }
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            super::super::super::bf16::to_bf16((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        let a: Vec<u16> = (0..8192).map(|_| random()).collect();
        let b: Vec<u16> = (0..12 * STEP).map(|_| random()).collect();
        for rows in [1, 7, 14, 16] {
            // Rows of A are three lines apart and start at an odd element, as in grad-weight.
            let product = Product {
                a: [a[1..].as_ptr(), a[3001..].as_ptr()],
                a_pitch: 192,
                outer: 2,
                outer_stride: 1000,
                window_rows: 2,
                row_stride: 320,
                window_columns: 3,
                b: b.as_ptr(),
            };
            let run = |tiles: TileIsa| {
                let (mut sums, mut line) = ([[[0.5; BLOCK]; TILE]; 2], [0; BLOCK]);
                tiles.run(rows, Multiply { product, sums: &mut sums, line: &mut line });
                (sums, line)
            };
            let (hardware, model) = (run(TileIsa::Amx), run(TileIsa::Model));
            assert!(hardware == model, "{rows} rows");
            assert!(model.0[0][0].iter().all(|sum| *sum != 0.5 && sum.is_finite()));
        }
    }
}
