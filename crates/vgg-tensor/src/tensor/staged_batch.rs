//! Batches that are copied to a device ahead of their step.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView4};

use crate::alloc::CpuBuffer;
use crate::cuda::HostToDevice;
use crate::{Device, Error, Result, Shape};

const OP: &str = "staged batch";

/// The images and targets of a step in device memory, at a fixed address that is refilled for each step.
///
/// A GPU copies a batch while it computes the step before.
pub struct StagedBatch {
    device: Device,
    shape: Shape,
    memory: Memory,
}

enum Memory {
    Cpu(CpuBuffer),
    Cuda(Box<HostToDevice>),
}

/// Byte offsets of the parts: pixels at 0, then offsets, then targets.
struct Layout {
    offsets: usize,
    targets: usize,
    end: usize,
}

impl StagedBatch {
    /// Allocates memory for images `[N, H, W, 3]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the shape is not `[N, H, W, 3]` or is empty; [`Error::OutOfMemory`] and
    /// [`Error::Cuda`] on a GPU.
    pub fn new(shape: impl Into<Shape>, device: &Device) -> Result<StagedBatch> {
        let shape = shape.into();
        if !matches!(shape.dims(), [_, _, _, 3]) || shape.is_empty() {
            let reason = format!("images {shape} must be [N, H, W, 3] and not empty");
            return Err(Error::Unsupported { op: OP, reason });
        }
        let bytes = Layout::of(shape).end;
        let memory = match device.cuda() {
            Some(cuda) => Memory::Cuda(Box::new(HostToDevice::new(cuda, bytes)?)),
            None => Memory::Cpu(device.cpu_context().memory.try_alloc(bytes)?),
        };
        Ok(StagedBatch { device: device.clone(), shape, memory })
    }

    /// Shape of the images.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Replaces all images: `pixels [N, H, W, 3]`, `offset [N, 3]` as in [`crate::ops::normalize`], and one
    /// target per image.
    ///
    /// # Errors
    /// [`Error::Shape`] if `pixels` or `offset` has another shape; [`Error::Length`] if the number of targets
    /// differs; [`Error::Unsupported`] if the pixels are not contiguous; [`Error::Cuda`] on a GPU.
    pub fn fill(&mut self, pixels: ArrayView4<u8>, offset: ArrayView2<f32>, targets: &[u32]) -> Result<()> {
        let (n, h, w, c) = pixels.dim();
        let got = Shape::from([n, h, w, c]);
        if got != self.shape {
            return Err(Error::Shape { op: OP, operand: "pixels", expected: self.shape, got });
        }
        if offset.dim() != (n, 3) {
            let got = Shape::from([offset.nrows(), offset.ncols()]);
            return Err(Error::Shape { op: OP, operand: "offset", expected: Shape::from([n, 3]), got });
        }
        if targets.len() != n {
            return Err(Error::Length { len: targets.len(), shape: Shape::from([n]) });
        }
        let Some(bytes) = pixels.as_slice() else {
            return Err(Error::Unsupported { op: OP, reason: "the pixels are not contiguous".into() });
        };
        let layout = Layout::of(self.shape);
        let write = |to: &mut [u8]| {
            to[..bytes.len()].copy_from_slice(bytes);
            let offsets = to[layout.offsets..].chunks_exact_mut(4).zip(&offset);
            offsets.for_each(|(to, value)| to.copy_from_slice(&value.to_ne_bytes()));
            let places = to[layout.targets..].chunks_exact_mut(4).zip(targets);
            places.for_each(|(to, target)| to.copy_from_slice(&target.to_ne_bytes()));
        };
        match &mut self.memory {
            Memory::Cpu(buffer) => {
                write(buffer.as_u8_mut(layout.end));
                Ok(())
            }
            Memory::Cuda(staged) => staged.fill(write),
        }
    }

    /// The device that holds the batch.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Pixels, offsets and targets of the images in a range, if they are in host memory.
    pub(crate) fn on_cpu(&self, images: Range<usize>) -> Option<(&[u8], &[f32], &[u32])> {
        let Memory::Cpu(buffer) = &self.memory else { return None };
        let layout = Layout::of(self.shape);
        let (per_image, all) = (self.shape.numel_per_sample(), buffer.as_u8(layout.end));
        let words = |from: usize, range: Range<usize>| &all[from + 4 * range.start..from + 4 * range.end];
        let pixels = &all[images.start * per_image..images.end * per_image];
        let offset = words(layout.offsets, 3 * images.start..3 * images.end);
        let targets = words(layout.targets, images);
        // SAFETY: the parts begin at multiples of 64 bytes of an aligned buffer, and any bits are a float or
        // an integer.
        let (offset, targets) = unsafe { (offset.align_to::<f32>().1, targets.align_to::<u32>().1) };
        Some((pixels, offset, targets))
    }

    /// GPU addresses of pixels, offsets and targets from image `first` on.
    pub(crate) fn on_gpu(&self, first: usize) -> Option<[u64; 3]> {
        let Memory::Cuda(staged) = &self.memory else { return None };
        let layout = Layout::of(self.shape);
        let at = |bytes: usize| staged.pointer() + bytes as u64;
        Some([
            at(first * self.shape.numel_per_sample()),
            at(layout.offsets + 12 * first),
            at(layout.targets + 4 * first),
        ])
    }

    /// Shape of the images in a range.
    pub(crate) fn part(&self, images: &Range<usize>) -> Result<Shape> {
        if images.is_empty() || images.end > self.shape.first() {
            let reason = format!("images {images:?} are empty or out of bounds for shape {}", self.shape);
            return Err(Error::Unsupported { op: OP, reason });
        }
        Ok(self.shape.with_first(images.len()))
    }
}

impl Layout {
    fn of(shape: Shape) -> Layout {
        let offsets = shape.len().next_multiple_of(64);
        let targets = offsets + (12 * shape.first()).next_multiple_of(64);
        Layout { offsets, targets, end: targets + 4 * shape.first() }
    }
}
