//! Global average pooling of dense score maps.

mod cpu;
mod cuda;

use crate::tensor::Storage;
use crate::{Error, Result, Shape, Tensor};

/// Class scores of each image: the mean over the cells of its dense score map.
///
/// `score_map [N, H, W, K]` holds logits; neighbouring cells are 32 pixels apart in the input. Returns logits
/// `[N, K]`; softmax is applied later, once per view. Source: Simonyan & Zisserman 2015, section 3.2.
///
/// # Errors
/// [`Error::Rank`] unless there are four axes; [`Error::Unsupported`] if the map is empty;
/// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn global_avg_pool2d(score_map: &Tensor) -> Result<Tensor> {
    let [n, _, _, k] = score_map.axes("global_avg_pool2d", "score_map", "[N, H, W, K]")?;
    if score_map.shape().is_empty() {
        let reason = format!("score_map {} is empty", score_map.shape());
        return Err(Error::Unsupported { op: "global_avg_pool2d", reason });
    }
    match score_map.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let score_map = &score_map.to_plain()?;
            Tensor::build(Shape::from([n, k]), score_map.device(), |y| {
                cpu::forward(score_map.device().cpu_context(), k, score_map.cpu(), y);
            })
        }
        Storage::Cuda(_) => cuda::forward(score_map),
    }
}
