//! Class scores of an image from its dense score map, and the gradient.

mod cpu;
mod cuda;

use crate::tensor::Storage;
use crate::{Error, Grad, Result, Shape, Tensor};

/// Class scores of each image from its dense score map: the mean over map cells.
///
/// `score_map [N, H, W, K]`: logits; neighbouring cells are 32 pixels apart in the input. Returns `[N, K]` logits;
/// softmax comes later, once per view. Source: Simonyan & Zisserman 2015, section 3.2.
///
/// # Errors
/// [`Error::Rank`] unless there are four axes, [`Error::Unsupported`] if the map is empty.
pub fn spatial_mean(score_map: &Tensor) -> Result<Tensor> {
    let [n, _, _, k] = score_map.axes("spatial_mean", "score_map", "[N, H, W, K]")?;
    if score_map.shape().is_empty() {
        let reason = format!("the map {} is empty", score_map.shape());
        return Err(Error::Unsupported { op: "spatial_mean", reason });
    }
    match score_map.storage() {
        Storage::Cpu(_) => Ok(Tensor::build(Shape::from([n, k]), score_map.device(), |y| {
            cpu::forward(score_map.device().cpu_context(), k, score_map.cpu(), y);
        })),
        Storage::Cuda(_) => cuda::forward(score_map),
    }
}

/// Gradient by the map: the gradient `dy [N, K]` of an image, over `h * w`, at each of its cells. Scores have no
/// activation, so no gate.
///
/// # Errors
/// [`Error::Rank`] unless `dy` has two axes.
pub fn spatial_mean_backward(dy: &Tensor, h: usize, w: usize) -> Result<Grad> {
    let [n, k] = dy.axes("spatial_mean backward", "dy", "[N, K]")?;
    match dy.storage() {
        Storage::Cpu(_) => {
            let mut channel_sums = Tensor::zeros([k], dy.device())?;
            let sums = channel_sums.cpu_mut("spatial_mean", "channel sums")?;
            let dz = Tensor::build(Shape::from([n, h, w, k]), dy.device(), |dz| {
                cpu::backward(h * w, dy.cpu(), dz, sums);
            });
            Ok(Grad { dz, channel_sums })
        }
        Storage::Cuda(_) => cuda::backward(dy, Shape::from([n, h, w, k])),
    }
}
