//! Softmax on a GPU.

use crate::cuda::rows;
use crate::{Result, Tensor};

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
            [rows(shape), 1],
            &[x.pointer, y.pointer(), shape.last() as u64],
        )
    }?;
    Ok(Tensor::from_buffer(shape, y, device))
}
