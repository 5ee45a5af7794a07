//! Softmax over the last axis, and its gradient.

mod cpu;
mod cuda;

pub(super) use cpu::row as cpu_row;

use crate::tensor::Storage;
use crate::{Grad, Result, Tensor};

/// Posterior of every row of logits: `exp(x - max) / sum`.
///
/// # Errors
/// [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    match logits.storage() {
        Storage::Cpu(_) => Ok(Tensor::build(logits.shape(), logits.device(), |y| {
            cpu::forward(logits.device().cpu_context(), logits.shape().last(), logits.cpu(), y);
        })),
        Storage::Cuda(_) => cuda::forward(logits),
    }
}

/// Gradient by the logits, from the posterior `y` and its gradient `dy`. Logits have no activation, so no gate.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn softmax_backward(y: &Tensor, dy: &Tensor) -> Result<Grad> {
    dy.expect_shape("softmax backward", "dy", y.shape())?;
    y.expect_same_device("softmax", &[("dy", dy)])?;
    match y.storage() {
        Storage::Cpu(_) => {
            let mut channel_sums = Tensor::zeros([y.shape().last()], y.device())?;
            let sums = channel_sums.cpu_mut("softmax", "channel sums")?;
            let dz = Tensor::build(y.shape(), y.device(), |dz| cpu::backward(y.cpu(), dy.cpu(), dz, sums));
            Ok(Grad { dz, channel_sums })
        }
        Storage::Cuda(_) => cuda::backward(y, dy),
    }
}
