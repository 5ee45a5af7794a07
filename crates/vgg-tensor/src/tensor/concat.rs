//! Concatenation of tensors along the first axis.

use super::blocked::Blocked;
use super::{Device, Storage, Tensor};
use crate::cpu::SharedMut;
use crate::cuda::Cuda;
use crate::{Error, Result, Shape};

impl Tensor {
    /// Concatenates tensors along the first axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if the other axes differ; [`Error::Unsupported`] if `parts` is empty;
    /// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
    pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
        let Some(first) = parts.first() else {
            return Err(Error::Unsupported { op: "concat", reason: "no tensors to concatenate".into() });
        };
        for part in parts {
            part.expect_shape("concat", "a part", first.shape.with_first(part.shape.first()))?;
        }
        let n = parts.iter().map(|p| p.shape.first()).sum();
        if let Some(cuda) = first.device.cuda() {
            return Tensor::concat_on_gpu(cuda, parts, first.shape.with_first(n), &first.device);
        }
        if parts.iter().any(|part| matches!(&*part.storage, Storage::Blocked(_))) {
            return Tensor::concat_blocked(parts, first.shape.with_first(n), &first.device);
        }
        Tensor::build_by_copy(first.shape.with_first(n), &first.device, |mut y| {
            for part in parts {
                let (to, rest) = y.split_at_mut(part.shape.len());
                to.copy_from_slice(part.cpu());
                y = rest;
            }
        })
    }

    /// Concatenates tensors on a GPU.
    fn concat_on_gpu(cuda: &Cuda, parts: &[Tensor], shape: Shape, device: &Device) -> Result<Tensor> {
        let buffer = cuda.take_plain(shape)?;
        let mut to = buffer.pointer();
        for part in parts {
            let bytes = 4 * part.shape.len();
            let part = cuda.plain_of("concat", "a part", part)?;
            // SAFETY: the part is plain, and the buffer has room for all of them.
            unsafe { cuda.copy(part.pointer, to, bytes) }?;
            to += bytes as u64;
        }
        Ok(Tensor::from_buffer(shape, buffer, device))
    }

    /// Concatenates blocked activations along the first axis.
    fn concat_blocked(parts: &[Tensor], shape: Shape, device: &Device) -> Result<Tensor> {
        let parts = parts.iter().map(Tensor::to_blocked).collect::<Result<Vec<_>>>()?;
        let cpu = device.cpu_context();
        Tensor::build_blocked(shape, device, |layout, lines| {
            let lines = SharedMut::new(lines);
            let mut first = 0;
            for part in parts.iter().map(Tensor::blocked) {
                let from = part.layout;
                // Lines of a block of a sample.
                let len = if from.holds_vectors() { 1 } else { from.block_stride };
                cpu.for_each(from.n * from.blocks(), |i| {
                    let (sample, block) = (i / from.blocks(), i % from.blocks());
                    let start = |of: &Blocked, sample| sample * of.sample_stride + block * of.block_stride;
                    // SAFETY: each block of a sample is written once.
                    let to = unsafe { lines.slice(start(layout, first + sample), len) };
                    to.copy_from_slice(&part.lines[start(&from, sample)..][..len]);
                });
                first += from.n;
            }
        })
    }
}
