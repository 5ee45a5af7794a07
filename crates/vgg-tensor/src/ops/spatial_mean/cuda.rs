//! The mean over map cells on a GPU.

use crate::cuda::rows;
use crate::{Grad, Result, Shape, Tensor};

const OP: &str = "spatial_mean";

pub(super) fn forward(score_map: &Tensor) -> Result<Tensor> {
    let device = score_map.device();
    let cuda = device.cuda_context();
    let (n, k) = (score_map.shape().first(), score_map.shape().last());
    let map = cuda.plain_of(OP, "score_map", score_map)?;
    let y = cuda.take_plain(Shape::from([n, k]))?;
    let cells = score_map.shape().per_image() / k;
    // SAFETY: the map has `n * cells * k` floats, and `y` has `n * k`.
    unsafe {
        cuda.launch(
            "spatial_mean_forward",
            n * k,
            &[map.pointer, y.pointer(), n as u64, cells as u64, k as u64],
        )
    }?;
    Ok(Tensor::from_buffer(Shape::from([n, k]), y, device))
}

pub(super) fn backward(dy: &Tensor, shape: Shape) -> Result<Grad> {
    let device = dy.device();
    let cuda = device.cuda_context();
    let (n, k) = (shape.first(), shape.last());
    let gradient = cuda.plain_of(OP, "dy", dy)?;
    let format = cuda.activation(k);
    let (dz, pitch) = (cuda.take(shape, format)?, format.pitch(k));
    let cells = shape.per_image() / k;
    let arguments = [gradient.pointer, dz.pointer(), n as u64, cells as u64, k as u64, pitch as u64];
    // SAFETY: the gradient has `n * k` floats, and `dz` is an activation with rows of `pitch`.
    unsafe { cuda.launch("spatial_mean_backward", rows(shape) * pitch, &arguments) }?;
    // SAFETY: `dz` was taken for an activation of this shape.
    unsafe { cuda.gradient(shape, dz, None, device) }
}
