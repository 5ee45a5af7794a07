//! Softmax cross-entropy on a GPU.

use super::Loss;
use crate::cuda::bits;
use crate::{Result, Shape, StepState, Tensor};

const OP: &str = "softmax_cross_entropy";

/// Loss with targets in host memory.
pub(super) fn forward(logits: &Tensor, targets: &[u32], weight: f32, state: &StepState) -> Result<Loss> {
    let cuda = logits.device().cuda_context();
    let on_device = cuda.alloc_bytes(4 * targets.len())?;
    cuda.upload(targets, &on_device)?;
    // SAFETY: there is a target for each row, as the caller has checked.
    unsafe { forward_of(logits, on_device.pointer(), weight, state) }
}

/// Loss with targets on the device.
///
/// # Safety
/// `targets` must be an integer of 32 bits for each row of `logits`, on the device.
pub(super) unsafe fn forward_of(
    logits: &Tensor,
    targets: u64,
    weight: f32,
    state: &StepState,
) -> Result<Loss> {
    let device = logits.device();
    let cuda = device.cuda_context();
    let (shape, classes, n) = (logits.shape(), logits.shape().last(), logits.shape().first());
    let x = cuda.plain_of(OP, "logits", logits)?;
    let losses = cuda.take_plain(Shape::from([n]))?;
    let format = cuda.activation(classes);
    let (dz, pitch) = (cuda.alloc(shape, format)?, format.pitch(classes));
    let arguments = [
        x.pointer,
        targets,
        bits(weight),
        losses.pointer(),
        dz.pointer(),
        classes as u64,
        pitch as u64,
        state.pointer(OP, cuda)?,
    ];
    // SAFETY: logits are plain, `dz` is an activation of their shape, there is a loss and a target for each
    // of the `n` rows.
    unsafe { cuda.launch_blocks(OP, [n, 1], &arguments) }?;
    Ok(Loss {
        per_sample: Tensor::from_buffer(Shape::from([n]), losses, device),
        // SAFETY: `dz` was allocated for an activation of this shape.
        grad: unsafe { cuda.gradient(shape, dz, None, device) }?,
    })
}
