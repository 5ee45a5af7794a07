//! The state of a training step that kernels read and write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::cpu::FiniteFlag;
use crate::cuda::{Cuda, CudaBuffer, bits};
use crate::{Device, Error, Result};

/// Learning rate, step number and `finite` flag of a step, in the memory of its device.
///
/// Loss and gradient kernels clear the flag when they write a value that is not finite.
/// [`crate::ops::sgd_step`] changes nothing while the flag is clear, so no such value reaches a weight.
/// Cloning shares the state.
#[derive(Clone)]
pub struct StepState(Arc<Inner>);

struct Inner {
    lr_bits: AtomicU32,
    step: AtomicU64,
    finite: FiniteFlag,
    on_device: Option<(Cuda, CudaBuffer)>,
}

/// The state in GPU memory: `struct Step` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct OnDevice {
    lr: f32,
    not_finite: u32,
    step: u64,
}

impl StepState {
    /// A state at step 0 with learning rate 0 and the flag set.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
    pub fn new(device: &Device) -> Result<StepState> {
        let on_device = match device.cuda() {
            Some(cuda) => Some((cuda.clone(), cuda.alloc_bytes(size_of::<OnDevice>())?)),
            None => None,
        };
        let (lr_bits, step, finite) = Default::default();
        let state = StepState(Arc::new(Inner { lr_bits, step, finite, on_device }));
        state.begin(0, 0.0)?;
        Ok(state)
    }

    /// Starts a step: sets learning rate and step number, and sets the flag.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn begin(&self, step: u64, lr: f32) -> Result<()> {
        self.0.lr_bits.store(lr.to_bits(), Relaxed);
        self.0.step.store(step, Relaxed);
        self.0.finite.reset();
        match &self.0.on_device {
            Some((cuda, buffer)) => {
                // SAFETY: the buffer was allocated for what this kernel writes.
                unsafe { cuda.launch("begin_step", 1, &[buffer.pointer(), bits(lr), step]) }
            }
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

    /// Whether every loss and gradient of this step was finite. On a GPU this waits for all queued work.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn finite(&self) -> Result<bool> {
        if let Some((cuda, buffer)) = &self.0.on_device {
            let mut state = [OnDevice::default()];
            // SAFETY: the buffer was allocated with the size of `OnDevice`, and every bit pattern is a valid
            // `OnDevice`.
            unsafe { cuda.download(buffer.pointer(), &mut state) }?;
            return Ok(state[0].not_finite == 0);
        }
        Ok(self.0.finite.is_set())
    }

    /// Size of the state in GPU memory.
    pub(crate) const BYTES: usize = size_of::<OnDevice>();

    /// Offset of `not_finite`, the inverse of the flag: 0 while all values are finite.
    pub(crate) const NOT_FINITE_AT: usize = std::mem::offset_of!(OnDevice, not_finite);

    /// Whether the state in `bytes` has only seen finite values.
    pub(crate) fn says_finite(bytes: &[u8]) -> bool {
        bytes[Self::NOT_FINITE_AT..][..4].iter().all(|byte| *byte == 0)
    }

    /// GPU address of the state.
    pub(crate) fn pointer(&self, op: &'static str, cuda: &Cuda) -> Result<u64> {
        let on_device = self.0.on_device.as_ref().filter(|(of, _)| of.shares_memory_with(cuda));
        on_device.map(|(_, buffer)| buffer.pointer()).ok_or(Error::Device { op, operand: "state" })
    }

    /// Checks that the state is a CPU's.
    pub(crate) fn expect_cpu(&self, op: &'static str) -> Result<()> {
        if self.0.on_device.is_some() { Err(Error::Device { op, operand: "state" }) } else { Ok(()) }
    }

    /// The flag that CPU kernels clear.
    pub(crate) fn flag(&self) -> &FiniteFlag {
        &self.0.finite
    }
}

impl std::fmt::Debug for StepState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepState(step {}, lr {})", self.step(), self.lr())
    }
}
