//! Conversion of pixels to activations in GPU memory.

use ndarray::ArrayView2;

use crate::cuda::{bits, rows};
use crate::{Device, Result, Shape, Tensor};

/// Uploads pixels and offsets, and converts the pixels.
pub(super) fn normalize(
    bytes: &[u8],
    offset: &ArrayView2<f32>,
    scale: [f32; 3],
    shape: Shape,
    device: &Device,
) -> Result<Tensor> {
    let cuda = device.cuda_context();
    let (pixels, offsets) = (cuda.alloc_bytes(bytes.len())?, cuda.alloc_bytes(4 * offset.len())?);
    cuda.upload(bytes, &pixels)?;
    let values: Vec<f32> = offset.iter().copied().collect();
    cuda.upload(&values, &offsets)?;
    // SAFETY: `bytes` and `offset` are of this shape, and were copied there.
    unsafe { convert(pixels.pointer(), offsets.pointer(), scale, shape, device) }
}

/// Converts pixels that are on the device.
///
/// # Safety
/// `pixels` must be a byte for each value of `shape [N, H, W, 3]`, and `offsets` three floats for each image,
/// on the device.
pub(super) unsafe fn convert(
    pixels: u64,
    offsets: u64,
    scale: [f32; 3],
    shape: Shape,
    device: &Device,
) -> Result<Tensor> {
    let cuda = device.cuda_context();
    let y = cuda.alloc(shape, cuda.activation(shape.last()))?;
    let [s0, s1, s2] = scale.map(bits);
    let (count, per_image) = (rows(shape), shape.numel_per_sample() / 3);
    let arguments = [pixels, offsets, s0, s1, s2, count as u64, per_image as u64, y.pointer()];
    // SAFETY: the caller has pixels and offsets of this shape on the device, and `y` is an activation of it.
    unsafe { cuda.launch("normalize", count, &arguments) }?;
    Ok(Tensor::from_buffer(shape, y, device))
}
