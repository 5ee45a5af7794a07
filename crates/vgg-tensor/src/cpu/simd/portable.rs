//! Plain arrays, which the compiler turns into whatever the baseline has.

use super::{LANES, Vector};

/// Eight values in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, x: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], x.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = LANES;

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
    fn larger(self, x: Self) -> Self {
        self.zip(x, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    fn where_positive(self, y: Self) -> Self {
        self.zip(y, |a, y| if y > 0.0 { a } else { 0.0 })
    }
}
