//! A tensor: a shape and a range of shared storage on a device.

mod activation;
mod blocked;
mod concat;
mod cuda_operand;
mod device;
mod grad;
mod parameter;
mod staged_batch;
mod step_state;
mod storage;

use std::sync::Arc;

use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};

pub(crate) use blocked::{BORDER, Blocked, BlockedView};
pub(crate) use cuda_operand::Operand;
pub use device::Device;
pub use grad::{Grad, ReluDropoutMask};
pub(crate) use parameter::PackedKind;
pub use parameter::{Parameter, ParameterKind, Weight};
pub use staged_batch::StagedBatch;
pub use step_state::StepState;
pub(crate) use storage::Storage;

use crate::alloc::or_out_of_memory;
use crate::cuda::Format;
use crate::{Error, GradMode, Result, Shape};

/// A tensor of `f32` values, row-major and contiguous; activations of a device that computes in bf16 are stored as bf16
/// in an internal layout. Cloning shares the storage.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    /// Index of the first element in the storage: a view starts at one of the samples.
    offset: usize,
    storage: Arc<Storage>,
    device: Device,
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        if let Some(cuda) = device.cuda() {
            let buffer = cuda.take_plain(shape)?;
            cuda.clear(&buffer)?;
            return Ok(Tensor::from_buffer(shape, buffer, device));
        }
        Tensor::build_by_copy(shape, device, |y| y.fill(0.0))
    }

    /// A tensor on `device` with a copy of `data`.
    ///
    /// # Errors
    /// [`Error::Length`] if `data` does not fill `shape`; [`Error::OutOfMemory`] and [`Error::Cuda`] on a
    /// GPU.
    pub fn from_slice(data: &[f32], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        if data.len() != shape.len() {
            return Err(Error::Length { len: data.len(), shape });
        }
        if let Some(cuda) = device.cuda() {
            let buffer = cuda.take_plain(shape)?;
            cuda.upload(data, &buffer)?;
            return Ok(Tensor::from_buffer(shape, buffer, device));
        }
        Tensor::build_by_copy(shape, device, |y| y.copy_from_slice(data))
    }

    /// A tensor on `device` with a copy of a host array.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the array has one to four axes; [`Error::OutOfMemory`] and
    /// [`Error::Cuda`] on a GPU.
    pub fn from_array<D: Dimension>(array: ArrayView<'_, f32, D>, device: &Device) -> Result<Tensor> {
        let shape = Shape::from_slice(array.shape()).ok_or_else(|| Error::Unsupported {
            op: "from_array",
            reason: format!("an array of {} axes; a tensor has one to four", array.ndim()),
        })?;
        if device.cuda().is_some() {
            return Tensor::from_slice(&array.iter().copied().collect::<Vec<f32>>(), shape, device);
        }
        Tensor::build(shape, device, |y| y.iter_mut().zip(array.iter()).for_each(|(y, x)| *y = *x))
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The device that holds the tensor.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Address of the first element in the memory of its device; it distinguishes tensors while they exist.
    pub fn data_ptr(&self) -> usize {
        match &*self.storage {
            Storage::Cpu(_) => self.cpu().as_ptr() as usize,
            Storage::Blocked(_) => self.blocked().lines.as_ptr() as usize,
            Storage::Cuda(buffer) => buffer.pointer() as usize + self.offset_bytes(buffer.format()),
        }
    }

    /// The elements as a host vector, row-major.
    ///
    /// # Panics
    /// If a GPU fails; [`Tensor::read_into`] returns an error instead.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = Vec::new();
        if let Err(e) = self.read_into(&mut values) {
            panic!("cannot read a tensor: {e}");
        }
        values
    }

    /// Replaces `values` by the elements, row-major. Waits for a GPU.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
    pub fn read_into(&self, values: &mut Vec<f32>) -> Result<()> {
        values.clear();
        let Some(cuda) = self.device.cuda() else {
            values.extend_from_slice(self.to_plain()?.cpu());
            return Ok(());
        };
        let plain = cuda.plain_of("read", "the tensor", self)?;
        values.resize(self.shape.len(), 0.0);
        // SAFETY: the plain tensor has a float for each value.
        unsafe { cuda.download(plain.pointer, values) }
    }

    /// The elements as a host array.
    ///
    /// # Panics
    /// As [`Tensor::to_vec`].
    pub fn to_array(&self) -> ArrayD<f32> {
        match ArrayD::from_shape_vec(IxDyn(self.shape.dims()), self.to_vec()) {
            Ok(array) => array,
            Err(e) => unreachable!("a tensor's elements fill its shape: {e}"),
        }
    }

    /// The same elements in another shape. Nothing is copied, except padded activations of a GPU if the last axis changes,
    /// and bf16 activations of a CPU.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of elements differs.
    pub fn into_reshaped(mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.len() != self.shape.len() {
            return Err(Error::Length { len: self.shape.len(), shape });
        }
        if Blocked::of(shape) != Blocked::of(self.shape) {
            self = self.to_plain()?;
        }
        if let Some(plain) = self.without_padding(shape)? {
            self = plain;
        }
        self.shape = shape;
        Ok(self)
    }

    /// A copy without padding if the tensor is padded and `shape` has another last axis.
    fn without_padding(&self, shape: Shape) -> Result<Option<Tensor>> {
        let (Some(cuda), Storage::Cuda(buffer)) = (self.device.cuda(), &*self.storage) else {
            return Ok(None);
        };
        let format = buffer.format();
        if shape.last() == self.shape.last() || format.padding == 0 {
            return Ok(None);
        }
        let plain = cuda.take_plain(self.shape)?;
        let from = self.cuda_memory("reshape", "x")?.0;
        // SAFETY: the tensor has this format, and `plain` was allocated for its values.
        unsafe { cuda.unpad(from, format, self.shape, plain.pointer(), false, 0) }?;
        Ok(Some(Tensor::from_buffer(self.shape, plain, &self.device)))
    }

    /// A view of the samples in `range`; nothing is copied.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the range is out of bounds.
    pub fn images(&self, range: std::ops::Range<usize>) -> Result<Tensor> {
        if range.start > range.end || range.end > self.shape.first() {
            return Err(Error::Unsupported {
                op: "images",
                reason: format!("range {range:?} is out of bounds for shape {}", self.shape),
            });
        }
        let offset = self.offset + range.start * self.shape.numel_per_sample();
        Ok(Tensor { shape: self.shape.with_first(range.len()), offset, ..self.clone() })
    }

    /// Copies the elements of `source`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Device`] if `source` is on another device,
    /// [`Error::Shared`] if another handle holds this storage.
    pub fn copy_from(&mut self, source: &Tensor) -> Result<()> {
        self.write("copy_from", source, GradMode::Overwrite)
    }

    /// Adds the elements of `source`.
    ///
    /// # Errors
    /// As [`Tensor::copy_from`].
    pub fn add_from(&mut self, source: &Tensor) -> Result<()> {
        self.write("add_from", source, GradMode::Accumulate)
    }

    fn write(&mut self, op: &'static str, source: &Tensor, mode: GradMode) -> Result<()> {
        source.expect_shape(op, "source", self.shape)?;
        self.expect_same_device(op, &[("source", source)])?;
        if let Some(cuda) = source.device.cuda() {
            let x = cuda.plain_of(op, "source", source)?;
            let y = self.cuda_memory_mut(op, "the destination")?;
            let (len, add) = (self.shape.len(), mode == GradMode::Accumulate);
            // SAFETY: both are plain and of one shape.
            return unsafe {
                cuda.launch("copy_or_add", len, &[x.pointer, y, len as u64, u64::from(add), 0])
            };
        }
        let source = source.to_plain()?;
        let x = source.cpu();
        let y = self.cpu_mut(op, "the destination")?;
        match mode {
            GradMode::Overwrite => y.copy_from_slice(x),
            GradMode::Accumulate => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
        }
        Ok(())
    }

    /// A new tensor; `fill` must write every element.
    ///
    /// # Errors
    /// [`Error::OutOfHostMemory`] if the tensor, or what `fill` needs, cannot be allocated.
    pub(crate) fn build(shape: Shape, device: &Device, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
        or_out_of_memory(|| {
            let mut buffer = device.cpu_context().memory.alloc_f32(shape.len());
            fill(buffer.as_f32_mut(shape.len()));
            Tensor::from_buffer(shape, buffer, device)
        })
    }

    /// Like [`Tensor::build`], for a `fill` that only copies values; a dry run skips it.
    fn build_by_copy(shape: Shape, device: &Device, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
        let dry_run = device.cpu_context().dry_run;
        Tensor::build(shape, device, |y| {
            if !dry_run {
                fill(y)
            }
        })
    }

    /// A tensor whose elements are in `buffer`.
    pub(crate) fn from_buffer(shape: Shape, buffer: impl Into<Storage>, device: &Device) -> Tensor {
        Tensor { shape, offset: 0, storage: Arc::new(buffer.into()), device: device.clone() }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The elements in host memory. An operation calls this only after it has matched on the storage.
    pub(crate) fn cpu(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(buffer) => &buffer.as_f32(self.offset + self.shape.len())[self.offset..],
            Storage::Blocked(_) => unreachable!("an operation on f32 got bf16 activations"),
            Storage::Cuda(_) => unreachable!("a CPU operation got a GPU tensor"),
        }
    }

    /// The elements in host memory, writable.
    pub(crate) fn cpu_mut(&mut self, op: &'static str, operand: &'static str) -> Result<&mut [f32]> {
        let (offset, len) = (self.offset, self.shape.len());
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::Cpu(buffer)) => Ok(&mut buffer.as_f32_mut(offset + len)[offset..]),
            Some(Storage::Blocked(_)) => Err(Error::Unsupported {
                op,
                reason: format!("{operand} is a bf16 activation, which cannot be written in place"),
            }),
            Some(Storage::Cuda(_)) => Err(Error::Device { op, operand }),
            None => Err(Error::Shared { op, operand }),
        }
    }

    /// GPU address and format of the elements.
    pub(crate) fn cuda_memory(&self, op: &'static str, operand: &'static str) -> Result<(u64, Format)> {
        let Storage::Cuda(buffer) = &*self.storage else { return Err(Error::Device { op, operand }) };
        let format = buffer.format();
        Ok((buffer.pointer() + self.offset_bytes(format) as u64, format))
    }

    /// Bytes before the first element in a buffer of this format.
    fn offset_bytes(&self, format: Format) -> usize {
        let elements = match self.shape.rank() {
            // A view of a vector may start at any element; a vector has no padding between elements.
            1 => self.offset,
            _ => self.offset / self.shape.last().max(1) * format.pitch(self.shape.last()),
        };
        elements * format.element.bytes()
    }

    /// GPU address of unpadded f32 elements, writable.
    pub(crate) fn cuda_memory_mut(&mut self, op: &'static str, operand: &'static str) -> Result<u64> {
        let pointer = self.plain_cuda_memory(op, operand)?;
        match Arc::get_mut(&mut self.storage) {
            Some(_) => Ok(pointer),
            None => Err(Error::Shared { op, operand }),
        }
    }

    /// GPU address of unpadded f32 elements.
    pub(crate) fn plain_cuda_memory(&self, op: &'static str, operand: &'static str) -> Result<u64> {
        match self.cuda_memory(op, operand)? {
            (pointer, Format::PLAIN) => Ok(pointer),
            (_, format) => Err(Error::Unsupported {
                op,
                reason: format!("{operand} must be unpadded f32, but is an activation ({format:?})"),
            }),
        }
    }

    /// Checks that all operands are on this tensor's device.
    pub(crate) fn expect_same_device(
        &self,
        op: &'static str,
        others: &[(&'static str, &Tensor)],
    ) -> Result<()> {
        match others.iter().find(|(_, other)| !self.device.shares_memory_with(&other.device)) {
            Some((operand, _)) => Err(Error::Device { op, operand }),
            None => Ok(()),
        }
    }

    /// Checks that a CPU tensor is in f32, as weights are.
    pub(crate) fn expect_plain(&self, op: &'static str, operand: &'static str) -> Result<()> {
        match &*self.storage {
            Storage::Blocked(_) => {
                let reason = format!("{operand} must be f32, but is a bf16 activation");
                Err(Error::Unsupported { op, reason })
            }
            Storage::Cpu(_) | Storage::Cuda(_) => Ok(()),
        }
    }

    pub(crate) fn expect_shape(
        &self,
        op: &'static str,
        operand: &'static str,
        expected: impl Into<Shape>,
    ) -> Result<()> {
        let expected = expected.into();
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::Shape { op, operand, expected, got: self.shape })
    }

    /// Sizes of the axes, if there are `N`.
    pub(crate) fn axes<const N: usize>(
        &self,
        op: &'static str,
        operand: &'static str,
        expected: &'static str,
    ) -> Result<[usize; N]> {
        let rank = || Error::Rank { op, operand, expected, got: self.shape };
        self.shape.dims().try_into().map_err(|_| rank())
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({}, {:?})", self.shape, self.device)
    }
}
