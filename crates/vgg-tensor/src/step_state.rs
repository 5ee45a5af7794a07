//! The state of a training step that kernels read and write themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Learning rate, step number and the `finite` flag of a step.
///
/// Loss and gradient kernels clear the flag when they write a value that is not finite, and
/// [`crate::ops::sgd_step`] changes nothing while it is clear: no bad value reaches a weight. Cloning shares the
/// state.
#[derive(Debug, Clone, Default)]
pub struct StepState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lr_bits: AtomicU32,
    step: AtomicU64,
    not_finite: AtomicBool,
}

impl StepState {
    /// Step 0 at learning rate 0, all finite.
    pub fn new() -> StepState {
        StepState::default()
    }

    /// Starts a step: sets rate and number and forgets what the last one found.
    pub fn begin(&self, step: u64, lr: f32) {
        self.0.lr_bits.store(lr.to_bits(), Relaxed);
        self.0.step.store(step, Relaxed);
        self.0.not_finite.store(false, Relaxed);
    }

    /// The learning rate.
    pub fn lr(&self) -> f32 {
        f32::from_bits(self.0.lr_bits.load(Relaxed))
    }

    /// The step number, from 0.
    pub fn step(&self) -> u64 {
        self.0.step.load(Relaxed)
    }

    /// Whether every loss and gradient of this step was finite.
    pub fn finite(&self) -> bool {
        !self.0.not_finite.load(Relaxed)
    }

    /// Clears the flag unless `values` are all finite.
    pub(crate) fn check(&self, values: &[f32]) {
        // Several sums, so that the loop vectorises.
        let mut sums = [0.0f32; 8];
        let chunks = values.chunks_exact(8);
        let rest = chunks.remainder().iter().map(|v| v * 0.0).sum::<f32>();
        for chunk in chunks {
            for (s, v) in sums.iter_mut().zip(chunk) {
                *s += v * 0.0; // 0 for a finite value, NaN for an infinity or a NaN
            }
        }
        if !(sums.iter().sum::<f32>() + rest).is_finite() {
            self.0.not_finite.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_value_anywhere_clears_the_flag() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in 0..20 {
                let state = StepState::new();
                let mut values = [f32::MAX; 20];
                state.check(&values);
                assert!(state.finite(), "large is not infinite");
                values[position] = bad;
                state.check(&values);
                assert!(!state.finite());
                state.begin(1, 0.1);
                assert!(state.finite());
            }
        }
    }
}
