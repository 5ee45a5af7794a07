//! The state of a training step that kernels read and write themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::cuda::{Cuda, CudaBuffer, bits};
use crate::{Device, Error, Result};

/// Learning rate, step number and the `finite` flag of a step, in the memory of the device that takes it.
///
/// Loss and gradient kernels clear the flag when they write a value that is not finite, and
/// [`crate::ops::sgd_step`] changes nothing while it is clear: no bad value reaches a weight. Cloning shares the
/// state.
#[derive(Clone)]
pub struct StepState(Arc<Inner>);

struct Inner {
    lr_bits: AtomicU32,
    step: AtomicU64,
    not_finite: AtomicBool,
    on_device: Option<(Cuda, CudaBuffer)>,
}

/// What kernels see: `struct Step` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct OnDevice {
    lr: f32,
    not_finite: u32,
    step: u64,
}

impl StepState {
    /// Step 0 at learning rate 0, all finite.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
    pub fn new(device: &Device) -> Result<StepState> {
        let on_device = match device.cuda() {
            Some(cuda) => Some((cuda.clone(), cuda.take_bytes(size_of::<OnDevice>())?)),
            None => None,
        };
        let (lr_bits, step, not_finite) = Default::default();
        let state = StepState(Arc::new(Inner { lr_bits, step, not_finite, on_device }));
        state.begin(0, 0.0)?;
        Ok(state)
    }

    /// Starts a step: sets rate and number and forgets what the last one found.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn begin(&self, step: u64, lr: f32) -> Result<()> {
        self.0.lr_bits.store(lr.to_bits(), Relaxed);
        self.0.step.store(step, Relaxed);
        self.0.not_finite.store(false, Relaxed);
        match &self.0.on_device {
            Some((cuda, buffer)) => cuda.launch("begin_step", 1, &[buffer.pointer(), bits(lr), step]),
            None => Ok(()),
        }
    }

    /// The learning rate.
    pub fn lr(&self) -> f32 {
        f32::from_bits(self.0.lr_bits.load(Relaxed))
    }

    /// The step number, from 0.
    pub fn step(&self) -> u64 {
        self.0.step.load(Relaxed)
    }

    /// Whether every loss and gradient of this step was finite. On a GPU this waits for all that was started.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn finite(&self) -> Result<bool> {
        if let Some((cuda, buffer)) = &self.0.on_device {
            let mut state = [OnDevice::default()];
            cuda.download(buffer.pointer(), &mut state)?;
            return Ok(state[0].not_finite == 0);
        }
        Ok(!self.0.not_finite.load(Relaxed))
    }

    /// Bytes of what kernels see.
    pub(crate) const BYTES: usize = size_of::<OnDevice>();

    /// Where in them the flag lies: 32 bits, 0 while all is finite.
    pub(crate) const NOT_FINITE_AT: usize = std::mem::offset_of!(OnDevice, not_finite);

    /// Whether these bytes of it say that all was finite.
    pub(crate) fn says_finite(bytes: &[u8]) -> bool {
        bytes[Self::NOT_FINITE_AT..][..4].iter().all(|byte| *byte == 0)
    }

    /// Where kernels find it.
    pub(crate) fn pointer(&self, op: &'static str) -> Result<u64> {
        let on_device = self.0.on_device.as_ref();
        on_device.map(|(_, buffer)| buffer.pointer()).ok_or(Error::Device { op, operand: "state" })
    }

    /// Whether it is a CPU's, for an operation there.
    pub(crate) fn expect_cpu(&self, op: &'static str) -> Result<()> {
        if self.0.on_device.is_some() { Err(Error::Device { op, operand: "state" }) } else { Ok(()) }
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

impl std::fmt::Debug for StepState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepState(step {}, lr {})", self.step(), self.lr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_value_anywhere_clears_the_flag() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in 0..20 {
                let state = StepState::new(&Device::cpu(1).unwrap()).unwrap();
                let mut values = [f32::MAX; 20];
                state.check(&values);
                assert!(state.finite().unwrap(), "large is not infinite");
                values[position] = bad;
                state.check(&values);
                assert!(!state.finite().unwrap());
                state.begin(1, 0.1).unwrap();
                assert!(state.finite().unwrap());
            }
        }
    }
}
