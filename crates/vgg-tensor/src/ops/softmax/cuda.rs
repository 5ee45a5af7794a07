//! Softmax on a GPU.

use crate::cuda::rows;
use crate::{Grad, Result, Tensor};

const OP: &str = "softmax";

pub(super) fn forward(logits: &Tensor) -> Result<Tensor> {
    let device = logits.device();
    let cuda = device.cuda_context();
    let shape = logits.shape();
    let (x, y) = (cuda.plain_of(OP, "logits", logits)?, cuda.take_plain(shape)?);
    // SAFETY: both are plain and of one shape, a block for each row.
    unsafe {
        cuda.launch_blocks(
            "softmax_forward",
            (rows(shape), 1),
            &[x.pointer, y.pointer(), shape.last() as u64],
        )
    }?;
    Ok(Tensor::from_buffer(shape, y, device))
}

pub(super) fn backward(y: &Tensor, dy: &Tensor) -> Result<Grad> {
    let device = y.device();
    let cuda = device.cuda_context();
    let (shape, classes) = (y.shape(), y.shape().last());
    let (posterior, gradient) = (cuda.plain_of(OP, "y", y)?, cuda.plain_of(OP, "dy", dy)?);
    let format = cuda.activation(classes);
    let (dz, pitch) = (cuda.take(shape, format)?, format.pitch(classes));
    let arguments = [posterior.pointer, gradient.pointer, dz.pointer(), classes as u64, pitch as u64];
    // SAFETY: posterior and gradient are plain and of one shape, and `dz` is an activation of it.
    unsafe { cuda.launch_blocks("softmax_backward", (rows(shape), 1), &arguments) }?;
    // SAFETY: `dz` was taken for an activation of this shape.
    unsafe { cuda.gradient(shape, dz, None, device) }
}
