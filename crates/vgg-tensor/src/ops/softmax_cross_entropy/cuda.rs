//! Loss of a batch on a GPU.

use super::Loss;
use crate::cuda::bits;
use crate::{Grad, Result, Shape, StepState, Tensor};

const OP: &str = "softmax_cross_entropy";

pub(super) fn forward(logits: &Tensor, targets: &[u32], weight: f32, state: &StepState) -> Result<Loss> {
    let device = logits.device();
    let cuda = device.cuda_context();
    let (shape, classes, n) = (logits.shape(), logits.shape().last(), targets.len());
    let x = cuda.plain_of(OP, "logits", logits)?;
    let on_device = cuda.take_bytes(4 * n)?;
    cuda.upload(targets, on_device.pointer())?;
    let losses = cuda.take_plain(Shape::from([n]))?;
    let format = cuda.activation(classes);
    let (dz, pitch) = (cuda.take(shape, format)?, format.pitch(classes));
    let arguments = [
        x.pointer,
        on_device.pointer(),
        bits(weight),
        losses.pointer(),
        dz.pointer(),
        classes as u64,
        pitch as u64,
        state.pointer(OP)?,
    ];
    cuda.launch_blocks(OP, (n, 1), &arguments)?;
    let sums = cuda.gate_and_sum(dz.pointer(), None, n, (classes, pitch))?;
    Ok(Loss {
        per_sample: Tensor::from_buffer(Shape::from([n]), losses, device),
        grad: Grad {
            dz: Tensor::from_buffer(shape, dz, device),
            channel_sums: Tensor::from_buffer(Shape::from([classes]), sums, device),
        },
    })
}
