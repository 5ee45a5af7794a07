//! A tensor: a shape and a range of shared storage on a device.

use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};

use crate::storage::{CpuBuffer, Shared, Storage};
use crate::{Device, Error, Result, Shape};

/// An `f32` tensor, row-major and contiguous. Cloning shares the storage.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    /// First element, for a view of some of the images.
    offset: usize,
    storage: Shared,
    device: Device,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Tensor {
        let shape = shape.into();
        Tensor::build_by_copy(shape, device, |y| y.fill(0.0))
    }

    /// A copy of host data on `device`.
    ///
    /// # Errors
    /// [`Error::Length`] if `data` does not fill `shape`.
    pub fn from_slice(data: &[f32], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        if data.len() != shape.len() {
            return Err(Error::Length { len: data.len(), shape });
        }
        Ok(Tensor::build_by_copy(shape, device, |y| y.copy_from_slice(data)))
    }

    /// A copy of a host array on `device`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the array has one to four axes.
    pub fn from_array<D: Dimension>(array: ArrayView<'_, f32, D>, device: &Device) -> Result<Tensor> {
        let shape = Shape::from_slice(array.shape()).ok_or_else(|| Error::Unsupported {
            op: "from_array",
            reason: format!("an array of {} axes; a tensor has one to four", array.ndim()),
        })?;
        Ok(Tensor::build(shape, device, |y| y.iter_mut().zip(array.iter()).for_each(|(y, x)| *y = *x)))
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The device that holds the tensor.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A host copy, row-major.
    pub fn to_vec(&self) -> Vec<f32> {
        match &*self.storage {
            Storage::Cpu(_) => self.cpu().to_vec(),
        }
    }

    /// As [`Tensor::to_vec`], in place of what `values` held.
    pub fn read_into(&self, values: &mut Vec<f32>) {
        values.clear();
        match &*self.storage {
            Storage::Cpu(_) => values.extend_from_slice(self.cpu()),
        }
    }

    /// A host copy.
    pub fn to_array(&self) -> ArrayD<f32> {
        match ArrayD::from_shape_vec(IxDyn(self.shape.dims()), self.to_vec()) {
            Ok(array) => array,
            Err(e) => unreachable!("a tensor's elements fill its shape: {e}"),
        }
    }

    /// The same elements under another shape; nothing is copied.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.len() != self.shape.len() {
            return Err(Error::Length { len: self.shape.len(), shape });
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// As [`Tensor::reshape`], without a second handle, so that the result may be written in place.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of elements differs.
    pub fn into_reshaped(mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.len() != self.shape.len() {
            return Err(Error::Length { len: self.shape.len(), shape });
        }
        self.shape = shape;
        Ok(self)
    }

    /// A view of some steps of the first axis; nothing is copied.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the range lies outside.
    pub fn images(&self, range: std::ops::Range<usize>) -> Result<Tensor> {
        if range.start > range.end || range.end > self.shape.first() {
            return Err(Error::Unsupported {
                op: "images",
                reason: format!("range {range:?} lies outside of {}", self.shape),
            });
        }
        let offset = self.offset + range.start * self.shape.per_image();
        Ok(Tensor { shape: self.shape.with_first(range.len()), offset, ..self.clone() })
    }

    /// A copy of some tensors behind each other along the first axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ in another axis; [`Error::Unsupported`] if there are none.
    pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
        let Some(first) = parts.first() else {
            return Err(Error::Unsupported { op: "concat", reason: "no tensors".into() });
        };
        for part in parts {
            part.expect_shape("concat", "a part", first.shape.with_first(part.shape.first()))?;
        }
        let n = parts.iter().map(|p| p.shape.first()).sum();
        Ok(Tensor::build_by_copy(first.shape.with_first(n), &first.device, |mut y| {
            for part in parts {
                let (to, rest) = y.split_at_mut(part.shape.len());
                to.copy_from_slice(part.cpu());
                y = rest;
            }
        }))
    }

    /// Writes `source` over this tensor, or adds it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Shared`] if another handle holds this storage.
    pub fn write_from(&mut self, source: &Tensor, write: crate::Write) -> Result<()> {
        source.expect_shape("write_from", "source", self.shape)?;
        let x = source.cpu();
        let y = self.cpu_mut("write_from", "the destination")?;
        match write {
            crate::Write::Overwrite => y.copy_from_slice(x),
            crate::Write::Accumulate => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
        }
        Ok(())
    }

    /// A new tensor whose every element `fill` writes.
    pub(crate) fn build(shape: Shape, device: &Device, fill: impl FnOnce(&mut [f32])) -> Tensor {
        let mut buffer = device.cpu_context().memory.take_f32(shape.len());
        fill(buffer.as_f32_mut(shape.len()));
        Tensor::from_buffer(shape, buffer, device)
    }

    /// As [`Tensor::build`] where `fill` only moves values about; a planning device leaves it out.
    fn build_by_copy(shape: Shape, device: &Device, fill: impl FnOnce(&mut [f32])) -> Tensor {
        let planning = device.cpu_context().planning;
        Tensor::build(shape, device, |y| {
            if !planning {
                fill(y)
            }
        })
    }

    /// As [`Tensor::build`], for a `fill` that can fail.
    pub(crate) fn try_build(
        shape: Shape,
        device: &Device,
        fill: impl FnOnce(&mut [f32]) -> Result<()>,
    ) -> Result<Tensor> {
        let mut buffer = device.cpu_context().memory.take_f32(shape.len());
        fill(buffer.as_f32_mut(shape.len()))?;
        Ok(Tensor::from_buffer(shape, buffer, device))
    }

    /// A tensor over a buffer that holds its elements.
    pub(crate) fn from_buffer(shape: Shape, buffer: CpuBuffer, device: &Device) -> Tensor {
        Tensor { shape, offset: 0, storage: Shared::new(buffer), device: device.clone() }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The elements in host memory.
    pub(crate) fn cpu(&self) -> &[f32] {
        let Storage::Cpu(buffer) = &*self.storage;
        &buffer.as_f32(self.offset + self.shape.len())[self.offset..]
    }

    /// The elements in host memory, to write.
    pub(crate) fn cpu_mut(&mut self, op: &'static str, operand: &'static str) -> Result<&mut [f32]> {
        let (offset, len) = (self.offset, self.shape.len());
        match self.storage.get_mut() {
            Some(Storage::Cpu(buffer)) => Ok(&mut buffer.as_f32_mut(offset + len)[offset..]),
            None => Err(Error::Shared { op, operand }),
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

    /// The axes of a tensor of rank `N`.
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
