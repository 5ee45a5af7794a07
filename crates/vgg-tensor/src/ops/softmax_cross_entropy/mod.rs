//! Softmax cross-entropy loss, the paper's multinomial logistic regression objective.

mod cpu;
mod cuda;

use std::ops::Range;

use crate::tensor::Storage;
use crate::{Error, Grad, Result, Shape, StagedBatch, StepState, Tensor};

/// Losses of the samples, and the gradient of their weighted sum.
#[derive(Debug)]
pub struct Loss {
    /// Loss of each sample `[N]`, not weighted.
    pub per_sample: Tensor,
    /// Gradient of `weight * sum of losses` with respect to the logits, which have no activation.
    pub grad: Grad,
}

/// Loss `-ln softmax(logits)[target]` of every sample.
///
/// `logits [N, K]`; `targets` are class indices below `K`. `weight` is the weight of a sample in the
/// gradient, usually one over the batch size, so that the gradients of micro-batches add up to the mean over
/// the batch. A loss that is not finite clears the flag of `state`.
///
/// # Errors
/// [`Error::Rank`] unless the logits have two axes; [`Error::Length`] unless there is one target per sample;
/// [`Error::Target`] if a target is out of range; [`Error::Device`] if `state` is another device's;
/// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn softmax_cross_entropy(
    logits: &Tensor,
    targets: &[u32],
    weight: f32,
    state: &StepState,
) -> Result<Loss> {
    let op = "softmax_cross_entropy";
    let [n, classes] = logits.axes(op, "logits", "[N, K]")?;
    if targets.len() != n {
        return Err(Error::Length { len: targets.len(), shape: Shape::from([n]) });
    }
    if let Some(sample) = targets.iter().position(|t| *t as usize >= classes) {
        return Err(Error::Target { op, target: targets[sample] as usize, sample, classes });
    }
    match logits.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            state.expect_cpu(op)?;
            let logits = &logits.to_plain()?;
            let device = logits.device();
            let mut per_sample = Tensor::zeros([n], device)?;
            let losses = per_sample.cpu_mut(op, "losses")?;
            let mut bias_grad = Tensor::zeros([classes], device)?;
            let sums = bias_grad.cpu_mut(op, "bias gradient")?;
            let dz = Tensor::build(logits.shape(), device, |dz| {
                cpu::forward(logits.cpu(), targets, weight, losses, dz, sums);
            })?;
            state.flag().check(losses);
            Ok(Loss { per_sample, grad: Grad { grad: dz, bias_grad } })
        }
        Storage::Cuda(_) => cuda::forward(logits, targets, weight, state),
    }
}

/// Like [`softmax_cross_entropy`], with the targets of a range of images of a staged batch. On a GPU, an
/// invalid target makes its loss NaN and clears the flag of `state`.
///
/// # Errors
/// As [`softmax_cross_entropy`]; [`Error::Unsupported`] if the range is empty or out of bounds.
pub fn softmax_cross_entropy_staged(
    logits: &Tensor,
    staged: &StagedBatch,
    images: Range<usize>,
    weight: f32,
    state: &StepState,
) -> Result<Loss> {
    let op = "softmax_cross_entropy";
    let [n, _] = logits.axes(op, "logits", "[N, K]")?;
    staged.part(&images)?;
    if images.len() != n {
        return Err(Error::Length { len: images.len(), shape: Shape::from([n]) });
    }
    if !logits.device().shares_memory_with(staged.device()) {
        return Err(Error::Device { op, operand: "staged batch" });
    }
    if let Some([_, _, targets]) = staged.on_gpu(images.start) {
        // SAFETY: the staged batch is on this GPU and has these images, one for each row.
        return unsafe { cuda::forward_of(logits, targets, weight, state) };
    }
    match staged.on_cpu(images) {
        Some((_, _, targets)) => softmax_cross_entropy(logits, targets, weight, state),
        None => unreachable!("a staged batch is on a CPU or on a GPU"),
    }
}
