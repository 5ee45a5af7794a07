//! Vectors as plain arrays, which the compiler translates to the baseline instruction set.

use super::Vector;

/// An array of `N` values. 16 are no faster than 8; they test the code path of AVX-512 on any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>([f32; N]);

impl<const N: usize> Portable<N> {
    #[inline(always)]
    fn zip(self, x: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], x.0[i])))
    }
}

impl<const N: usize> Vector for Portable<N> {
    const LANES: usize = N;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; N])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises as many readable values.
        Portable(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises as many writable values.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn add(self, x: Self) -> Self {
        self.zip(x, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, x: Self) -> Self {
        self.zip(x, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, x: Self) -> Self {
        self.zip(x, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * x.0[i] + y.0[i]))
    }

    #[inline(always)]
    fn max_nan_first(self, x: Self) -> Self {
        self.zip(x, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    fn mask_gt_zero(self, y: Self) -> Self {
        self.zip(y, |a, y| if y > 0.0 { a } else { 0.0 })
    }
}
