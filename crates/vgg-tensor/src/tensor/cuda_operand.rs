//! Tensors as operands of GPU kernels, converted to the format that the operation needs.

use std::sync::Arc;

use super::grad::Grad;
use super::parameter::{PackedKind, Weight};
use super::storage::Storage;
use super::{Device, Tensor};
use crate::cuda::{CHANNEL_ALIGNMENT, Cuda, CudaBuffer, Element, Format, THREADS, bits, rows};
use crate::{Error, Result, Shape};

/// GPU memory of an operand: rows of the last axis, `pitch` elements apart.
pub(crate) struct Operand {
    pub(crate) pointer: u64,
    pub(crate) pitch: usize,
    /// A converted copy, which lives as long as the operand.
    _own: Option<CudaBuffer>,
    _shared: Option<Arc<Storage>>,
}

impl Operand {
    fn borrowed(pointer: u64, pitch: usize) -> Operand {
        Operand { pointer, pitch, _own: None, _shared: None }
    }

    fn owned(buffer: CudaBuffer, pitch: usize) -> Operand {
        Operand { pointer: buffer.pointer(), pitch, _own: Some(buffer), _shared: None }
    }
}

impl Cuda {
    /// Checks that a tensor is in the memory of this device.
    fn expect_own(&self, op: &'static str, name: &'static str, tensor: &Tensor) -> Result<()> {
        match tensor.device().cuda() {
            Some(cuda) if cuda.shares_memory_with(self) => Ok(()),
            _ => Err(Error::Device { op, operand: name }),
        }
    }

    /// A tensor as an activation of this device: padded, in the device's precision.
    pub(crate) fn activation_of(
        &self,
        op: &'static str,
        name: &'static str,
        tensor: &Tensor,
    ) -> Result<Operand> {
        self.expect_own(op, name, tensor)?;
        let (pointer, format) = tensor.cuda_memory(op, name)?;
        let shape = tensor.shape();
        let wanted = self.activation(shape.last());
        let pitch = wanted.pitch(shape.last());
        if format == wanted {
            return Ok(Operand::borrowed(pointer, pitch));
        }
        if format != Format::PLAIN {
            return Err(Error::Unsupported {
                op,
                reason: format!("{name} is an activation of another precision"),
            });
        }
        let buffer = self.alloc(shape, wanted)?;
        // SAFETY: the tensor is plain, and the buffer was allocated for its padded form.
        unsafe {
            self.pad(
                Rows::of(pointer, shape),
                Rows { pointer: buffer.pointer(), count: rows(shape), len: pitch },
            )
        }?;
        Ok(Operand::owned(buffer, pitch))
    }

    /// A tensor as unpadded f32.
    pub(crate) fn plain_of(&self, op: &'static str, name: &'static str, tensor: &Tensor) -> Result<Operand> {
        self.expect_own(op, name, tensor)?;
        let (pointer, format) = tensor.cuda_memory(op, name)?;
        let shape = tensor.shape();
        if format == Format::PLAIN {
            return Ok(Operand::borrowed(pointer, shape.last()));
        }
        let buffer = self.take_plain(shape)?;
        // SAFETY: the tensor has this format, and the buffer was allocated for its plain form.
        unsafe { self.unpad(pointer, format, shape, buffer.pointer(), false, 0) }?;
        Ok(Operand::owned(buffer, shape.last()))
    }

    /// An activation as the matrix `[N, ..]`: one row per image, without padding inside a row.
    pub(crate) fn matrix_of(&self, op: &'static str, name: &'static str, tensor: &Tensor) -> Result<Operand> {
        let shape = tensor.shape();
        let per_image = shape.numel_per_sample();
        let x = self.activation_of(op, name, tensor)?;
        if x.pitch == shape.last() || shape.rank() == 2 {
            let pitch = if shape.rank() == 2 { x.pitch } else { per_image };
            return Ok(Operand { pitch, ..x });
        }
        let format = self.activation(per_image);
        let pitch = format.pitch(per_image);
        let buffer = self.alloc(Shape::from([shape.first(), per_image]), format)?;
        let n = shape.first();
        // SAFETY: the tensor is an activation, and the buffer was allocated for rows of whole images.
        unsafe {
            self.launch(
                "flatten",
                n * pitch,
                &[
                    x.pointer,
                    buffer.pointer(),
                    n as u64,
                    per_image as u64,
                    shape.last() as u64,
                    x.pitch as u64,
                    pitch as u64,
                ],
            )
        }?;
        Ok(Operand::owned(buffer, pitch))
    }

    /// A weight as an operand of a matrix product or a convolution: filters and channels padded, in the
    /// device's precision. The copy is kept with the weight; if the weight needs no conversion, it is the
    /// operand itself.
    pub(crate) fn weight_of(&self, op: &'static str, name: &'static str, weight: &Weight) -> Result<Operand> {
        let value = weight.value();
        self.expect_own(op, name, value)?;
        let pointer = value.plain_cuda_memory(op, name)?;
        let shape = weight.shape();
        let layout = self.weight_layout(shape);
        let pitch = layout.format.pitch(shape.last());
        if layout.is_plain && self.element() == Element::F32 {
            return Ok(Operand::borrowed(pointer, pitch));
        }
        let shared = weight.packed_storage(PackedKind::Cuda, || {
            let buffer = self.alloc(layout.padded, layout.format)?;
            let padded = Rows { pointer: buffer.pointer(), count: rows(layout.padded), len: pitch };
            // SAFETY: the value is plain, and the buffer was allocated for the padded layout.
            unsafe { self.pad(Rows::of(pointer, shape), padded) }?;
            Ok(Arc::new(Storage::from(buffer)))
        })?;
        let Storage::Cuda(buffer) = &*shared else { return Err(Error::Device { op, operand: name }) };
        Ok(Operand { pointer: buffer.pointer(), pitch, _own: None, _shared: Some(shared) })
    }

    /// Layout of a weight of this shape for kernels.
    pub(crate) fn weight_layout(&self, shape: Shape) -> WeightLayout {
        let format = self.activation(shape.last());
        // Filters, or rows of a matrix, are padded too; a bias is a single row.
        let first =
            if shape.rank() == 1 { shape.first() } else { shape.first().next_multiple_of(CHANNEL_ALIGNMENT) };
        let padded = shape.with_first(first);
        let is_plain = format.padding == 0 && first == shape.first();
        WeightLayout { padded, format, is_plain }
    }

    /// Copies unpadded f32 to rows of this device's element type, at least as many and as long; the rest
    /// becomes zero.
    ///
    /// # Safety
    /// Both must be memory of this device of those sizes.
    unsafe fn pad(&self, from: Rows, to: Rows) -> Result<()> {
        let sizes = [from.count, to.count, from.len, to.len].map(|size| size as u64);
        let arguments = [&[from.pointer, to.pointer][..], &sizes].concat();
        // SAFETY: by the caller's promise.
        unsafe { self.launch("to_padded", to.count * to.len / 8, &arguments) }
    }

    /// Copies a tensor of any format to unpadded f32, or adds it. `step` is the GPU address of a step state
    /// whose flag a non-finite value clears, or 0.
    ///
    /// # Safety
    /// `from` must be memory of `shape` in `format`, `to` of as many plain floats, and `step` a state's on
    /// this device, or 0.
    pub(crate) unsafe fn unpad(
        &self,
        from: u64,
        format: Format,
        shape: Shape,
        to: u64,
        add: bool,
        step: u64,
    ) -> Result<()> {
        let (rows, c) = (rows(shape), shape.last());
        if format == Format::PLAIN {
            // SAFETY: by the caller's promise.
            return unsafe {
                self.launch("copy_or_add", shape.len(), &[from, to, shape.len() as u64, u64::from(add), step])
            };
        }
        let arguments = [from, to, rows as u64, c as u64, format.pitch(c) as u64, u64::from(add), step];
        // SAFETY: by the caller's promise.
        unsafe { self.launch("to_plain", rows * c, &arguments) }
    }

    /// Completes a gradient `dz`, an activation of `shape` that was just computed: applies the mask `mask` in
    /// place, if there is one, and sums the gradient per channel. `mask` is the GPU address of the saved
    /// output, in the same layout, and the scale.
    ///
    /// # Safety
    /// `dz` must have been allocated for an activation of `shape`, and the mask be memory of the same layout.
    pub(crate) unsafe fn gradient(
        &self,
        shape: Shape,
        dz: CudaBuffer,
        mask: Option<(u64, f32)>,
        device: &Device,
    ) -> Result<Grad> {
        let c = shape.last();
        let pitch = dz.format().pitch(c);
        // SAFETY: by the caller's promise.
        let sums = unsafe { self.relu_backward_and_bias_grad(dz.pointer(), mask, rows(shape), c, pitch) }?;
        Ok(Grad {
            grad: Tensor::from_buffer(shape, dz, device),
            bias_grad: Tensor::from_buffer(Shape::from([c]), sums, device),
        })
    }

    /// Applies the mask `mask` to a gradient in place, if there is one, and returns the gradient's sum per
    /// channel.
    ///
    /// `dz [rows, pitch]` is an activation; `mask` is the GPU address of the saved output, in the same
    /// layout, and the scale.
    ///
    /// # Safety
    /// Both must be memory of `rows` rows of `pitch` elements.
    unsafe fn relu_backward_and_bias_grad(
        &self,
        dz: u64,
        mask: Option<(u64, f32)>,
        rows: usize,
        c: usize,
        pitch: usize,
    ) -> Result<CudaBuffer> {
        let vectors = pitch / 8;
        // Enough blocks to fill a GPU, but few enough that adding their sums is cheap. By shape alone,
        // because the split determines the rounding.
        let groups = vectors.div_ceil(THREADS);
        let per_block = rows.div_ceil((1024 / groups).max(1)).max(32);
        let blocks = rows.div_ceil(per_block);
        let partial = self.alloc_bytes(blocks * pitch * 4)?;
        let (y, scale) = mask.unwrap_or((0, 1.0));
        let grid = [blocks, groups];
        // SAFETY: by the caller's promise; `partial` has a row of floats for each block.
        unsafe {
            self.launch_blocks(
                "relu_backward_and_bias_grad",
                grid,
                &[dz, y, bits(scale), rows as u64, pitch as u64, per_block as u64, partial.pointer()],
            )
        }?;
        let sums = self.take_plain(Shape::from([c]))?;
        // SAFETY: `partial` has `blocks` rows of `pitch` floats, and `sums` has `c`.
        unsafe {
            self.launch_blocks(
                "add_partial_sums",
                [c.div_ceil(32), 1],
                &[partial.pointer(), sums.pointer(), blocks as u64, c as u64, pitch as u64],
            )
        }?;
        Ok(sums)
    }
}

/// Rows in GPU memory.
struct Rows {
    pointer: u64,
    count: usize,
    /// Elements per row.
    len: usize,
}

impl Rows {
    /// Rows of an unpadded tensor.
    fn of(pointer: u64, shape: Shape) -> Rows {
        Rows { pointer, count: rows(shape), len: shape.last() }
    }
}

/// Layout that [`Cuda::weight_layout`] returns.
pub(crate) struct WeightLayout {
    pub(crate) padded: Shape,
    pub(crate) format: Format,
    /// Whether no axis is padded.
    pub(crate) is_plain: bool,
}
