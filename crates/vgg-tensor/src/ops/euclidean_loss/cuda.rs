//! Euclidean loss on a GPU.

use crate::cuda::bits;
use crate::ops::Loss;
use crate::{Result, Shape, StepState, Tensor};

const OP: &str = "euclidean_loss";

pub(super) fn forward(x: &Tensor, target: &Tensor, weight: f32, state: &StepState) -> Result<Loss> {
    let device = x.device();
    let cuda = device.cuda_context();
    let (shape, n, c) = (x.shape(), x.shape().first(), x.shape().last());
    let (values, targets) = (cuda.plain_of(OP, "x", x)?, cuda.plain_of(OP, "target", target)?);
    let losses = cuda.take_plain(Shape::from([n]))?;
    let format = cuda.activation(c);
    let (dz, pitch) = (cuda.alloc(shape, format)?, format.pitch(c));
    let arguments = [
        values.pointer,
        targets.pointer,
        bits(weight),
        losses.pointer(),
        dz.pointer(),
        shape.numel_per_sample() as u64,
        c as u64,
        pitch as u64,
        state.pointer(OP, cuda)?,
    ];
    // SAFETY: both are plain and of one shape, `dz` is an activation of it, and there is a loss for each of
    // the `n` rows.
    unsafe { cuda.launch_blocks(OP, [n, 1], &arguments) }?;
    Ok(Loss {
        per_sample: Tensor::from_buffer(Shape::from([n]), losses, device),
        // SAFETY: `dz` was allocated for an activation of this shape.
        grad: unsafe { cuda.gradient(shape, dz, None, device) }?,
    })
}
