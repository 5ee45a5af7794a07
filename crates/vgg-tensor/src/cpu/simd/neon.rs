//! NEON vectors of 64-bit ARM: pairs of 128-bit registers.

use std::arch::aarch64::*;

use super::Vector;

/// Two 128-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t, float32x4_t);

impl Neon {
    #[inline(always)]
    fn zip(self, x: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Neon(f(self.0, x.0), f(self.1, x.1))
    }
}

// SAFETY, for every block in this implementation: every 64-bit ARM processor has these instructions; memory
// is the caller's promise.
impl Vector for Neon {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: features as above.
        let half = unsafe { vdupq_n_f32(x) };
        Neon(half, half)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: features as above; the caller promises eight readable values.
        unsafe { Neon(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: features as above; the caller promises eight writable values.
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
        }
    }

    #[inline(always)]
    fn add(self, x: Self) -> Self {
        // SAFETY: features as above.
        self.zip(x, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, x: Self) -> Self {
        // SAFETY: features as above.
        self.zip(x, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, x: Self) -> Self {
        // SAFETY: features as above.
        self.zip(x, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        // SAFETY: features as above.
        unsafe { Neon(vfmaq_f32(y.0, self.0, x.0), vfmaq_f32(y.1, self.1, x.1)) }
    }

    #[inline(always)]
    fn max_nan_first(self, x: Self) -> Self {
        // SAFETY: features as above.
        self.zip(x, |a, b| unsafe { vbslq_f32(vcgtq_f32(b, a), b, a) })
    }

    #[inline(always)]
    fn mask_gt_zero(self, y: Self) -> Self {
        // SAFETY: features as above.
        self.zip(y, |a, y| unsafe { vbslq_f32(vcgtzq_f32(y), a, vdupq_n_f32(0.0)) })
    }
}
