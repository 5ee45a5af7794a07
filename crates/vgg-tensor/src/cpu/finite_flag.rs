//! A flag that shows whether the kernels of a step wrote only finite values.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Set until a kernel writes an infinity or a NaN. The threads of the pool share it.
pub(crate) struct FiniteFlag(AtomicBool);

impl Default for FiniteFlag {
    fn default() -> FiniteFlag {
        FiniteFlag(AtomicBool::new(true))
    }
}

impl FiniteFlag {
    /// Sets the flag at the start of a step.
    pub(crate) fn reset(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether all values so far were finite.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Clears the flag unless `values` are all finite.
    pub(crate) fn check(&self, values: &[f32]) {
        // Eight independent sums, so that the loop vectorises.
        let mut sums = [0.0f32; 8];
        let chunks = values.chunks_exact(8);
        let rest = chunks.remainder().iter().map(|v| v * 0.0).sum::<f32>();
        for chunk in chunks {
            for (s, v) in sums.iter_mut().zip(chunk) {
                *s += v * 0.0; // 0 for a finite value, NaN for an infinity or a NaN
            }
        }
        if !(sums.iter().sum::<f32>() + rest).is_finite() {
            self.0.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_non_finite_value_at_any_position_clears_the_flag() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in 0..20 {
                let flag = FiniteFlag::default();
                let mut values = [f32::MAX; 20];
                flag.check(&values);
                assert!(flag.is_set(), "f32::MAX is finite");
                values[position] = bad;
                flag.check(&values);
                assert!(!flag.is_set());
                flag.reset();
                assert!(flag.is_set());
            }
        }
    }
}
