//! Global average pooling on a GPU.

use crate::{Result, Shape, Tensor};

const OP: &str = "global_avg_pool2d";

pub(super) fn forward(score_map: &Tensor) -> Result<Tensor> {
    let device = score_map.device();
    let cuda = device.cuda_context();
    let (n, k) = (score_map.shape().first(), score_map.shape().last());
    let map = cuda.plain_of(OP, "score_map", score_map)?;
    let y = cuda.take_plain(Shape::from([n, k]))?;
    let cells = score_map.shape().numel_per_sample() / k;
    // SAFETY: the map has `n * cells * k` floats, and `y` has `n * k`.
    unsafe {
        cuda.launch(
            "global_avg_pool2d_forward",
            n * k,
            &[map.pointer, y.pointer(), n as u64, cells as u64, k as u64],
        )
    }?;
    Ok(Tensor::from_buffer(Shape::from([n, k]), y, device))
}
