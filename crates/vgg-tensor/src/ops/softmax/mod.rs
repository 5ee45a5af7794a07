//! Softmax over the last axis.

mod cpu;
mod cuda;

pub(super) use cpu::row as cpu_row;

use crate::tensor::Storage;
use crate::{Result, Tensor};

/// Posteriors of every row of logits: `exp(x - max) / sum`.
///
/// # Errors
/// [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    match logits.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let logits = &logits.to_plain()?;
            Tensor::build(logits.shape(), logits.device(), |y| {
                cpu::forward(logits.device().cpu_context(), logits.shape().last(), logits.cpu(), y);
            })
        }
        Storage::Cuda(_) => cuda::forward(logits),
    }
}
