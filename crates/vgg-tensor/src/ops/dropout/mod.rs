//! Dropout with counter-based random numbers, which depend on a key and a position alone.

mod cpu;
mod cuda;
mod philox;

use crate::tensor::Storage;
use crate::{Error, Result, StepState, Tensor};

/// Key of the random numbers of one dropout.
///
/// A sample's numbers do not depend on how its batch is split: sample `i` of the tensor uses the numbers of
/// sample `first_sample + i` of the step's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
    /// Number of the dropout within the network.
    pub layer: u32,
    /// Position of the first sample of this tensor in the step's batch.
    pub first_sample: usize,
}

/// Zeroes each value of `x [N, ..]` with probability `rate` and multiplies the others by `1 / (1 - rate)`.
///
/// The backward pass is a [`crate::ReluDropoutMask`] with that scale, because a dropped value is not
/// positive.
///
/// # Errors
/// [`Error::Unsupported`] unless `0 <= rate < 1`; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn forward(x: &Tensor, rate: f32, key: DropoutKey) -> Result<Tensor> {
    dropped(x, rate, key, None)
}

/// Like [`forward`], but reads the step number from `state` at execution time instead of from `key.step`, so
/// that a captured step ([`crate::StepGraph`]) draws new values at each launch.
///
/// # Errors
/// As [`forward`]; [`Error::Device`] if `state` is another device's.
pub fn forward_in_step(x: &Tensor, rate: f32, key: DropoutKey, state: &StepState) -> Result<Tensor> {
    dropped(x, rate, key, Some(state))
}

fn dropped(x: &Tensor, rate: f32, key: DropoutKey, state: Option<&StepState>) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        let reason = format!("rate {rate} is not in [0, 1)");
        return Err(Error::Unsupported { op: "dropout", reason });
    }
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let x = &x.to_plain()?;
            state.map_or(Ok(()), |state| state.expect_cpu("dropout"))?;
            let key = DropoutKey { step: state.map_or(key.step, StepState::step), ..key };
            let y = Tensor::build(x.shape(), x.device(), |y| {
                cpu::forward(x.device().cpu_context(), x.shape().numel_per_sample(), x.cpu(), rate, key, y);
            })?;
            y.into_activation()
        }
        Storage::Cuda(_) => cuda::forward(x, rate, key, state),
    }
}
