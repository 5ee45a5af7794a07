//! Conversion of pixels to network inputs.

mod cuda;

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView4};

use crate::{Device, Error, Result, Shape, StagedBatch, Tensor};

/// `(pixels + offset) * scale` on `device`.
///
/// `pixels [N, H, W, 3]` are bytes. `offset [N, 3]`, in the same unit, is each image's PCA jitter minus the
/// mean pixel; `scale` is a factor per channel. Returns `[N, H, W, 3]`.
///
/// # Errors
/// [`Error::Shape`] if `offset` has another shape; [`Error::Unsupported`] unless `pixels` are `[N, H, W, 3]`,
/// contiguous and not empty; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn normalize(
    pixels: ArrayView4<u8>,
    offset: ArrayView2<f32>,
    scale: [f32; 3],
    device: &Device,
) -> Result<Tensor> {
    let op = "normalize";
    let (n, h, w, c) = pixels.dim();
    let shape = Shape::from([n, h, w, c]);
    let unsupported = |reason| Error::Unsupported { op, reason };
    if c != 3 || shape.is_empty() {
        return Err(unsupported(format!("pixels {shape} must be [N, H, W, 3] and not empty")));
    }
    if offset.dim() != (n, 3) {
        let got = Shape::from([offset.nrows(), offset.ncols()]);
        return Err(Error::Shape { op, operand: "offset", expected: Shape::from([n, 3]), got });
    }
    let Some(bytes) = pixels.as_slice() else {
        return Err(unsupported("the pixels are not contiguous".into()));
    };
    if device.cuda().is_some() {
        return cuda::normalize(bytes, &offset, scale, shape, device);
    }
    convert(bytes, |image, c| offset[[image, c]], scale, shape, device)
}

/// Like [`normalize`], for a range of images of a staged batch.
///
/// # Errors
/// [`Error::Unsupported`] if the range is empty or out of bounds; [`Error::OutOfMemory`] and [`Error::Cuda`]
/// on a GPU.
pub fn normalize_staged(staged: &StagedBatch, images: Range<usize>, scale: [f32; 3]) -> Result<Tensor> {
    let (shape, device) = (staged.part(&images)?, staged.device());
    if let Some([pixels, offsets, _]) = staged.on_gpu(images.start) {
        // SAFETY: the staged batch has these images.
        return unsafe { cuda::convert(pixels, offsets, scale, shape, device) };
    }
    match staged.on_cpu(images) {
        Some((bytes, offset, _)) => convert(bytes, |image, c| offset[3 * image + c], scale, shape, device),
        None => unreachable!("a staged batch is on a CPU or on a GPU"),
    }
}

fn convert(
    bytes: &[u8],
    offset: impl Fn(usize, usize) -> f32 + Sync,
    scale: [f32; 3],
    shape: Shape,
    device: &Device,
) -> Result<Tensor> {
    let per_image = shape.numel_per_sample();
    Tensor::build(shape, device, |y| {
        device.cpu_context().for_each_chunk(y, per_image, |image, y| {
            let offset = [0, 1, 2].map(|c| offset(image, c));
            let bytes = &bytes[image * per_image..][..per_image];
            for (y, pixel) in y.chunks_exact_mut(3).zip(bytes.chunks_exact(3)) {
                for c in 0..3 {
                    y[c] = (f32::from(pixel[c]) + offset[c]) * scale[c];
                }
            }
        });
    })
}
