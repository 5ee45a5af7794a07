//! Weights with the packed copies that kernels read, and parameters: weights with a gradient.

use std::sync::{Arc, Mutex, PoisonError};

use crate::tensor::Storage;
use crate::{GradMode, Result, Shape, Tensor};

/// A weight tensor and its packed copies, such as the packed filters of a convolution.
///
/// Every change of the value increments the version; a packed copy of an older version is repacked on its
/// next use.
pub struct Weight {
    value: Tensor,
    version: u64,
    packed: Mutex<Vec<Packed>>,
    /// Whether packed copies are kept for the next use. A weight in training on a CPU keeps none: the next
    /// step would make them stale, and they take twice the memory of the weights. A GPU keeps its copy, which
    /// the SGD step updates.
    keep: bool,
}

struct Packed {
    kind: PackedKind,
    version: u64,
    storage: Arc<Storage>,
}

/// Kind of packed copy: one per algorithm and pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedKind {
    /// Panels of 16 filters for the direct convolution.
    DirectForward,
    /// Panels of the rotated filters with inputs and outputs swapped, for the direct grad-input.
    DirectGradInput,
    /// Transformed filters of the Winograd convolution with tiles of this many outputs a side.
    WinogradForward(usize),
    /// Transformed rotated filters with inputs and outputs swapped, for the Winograd grad-input.
    WinogradGradInput(usize),
    /// Panels of 32 filters in bf16, for the tile unit, with this many taps of `c` channels. They depend on the form of
    /// the input: the same weights may serve vectors and images.
    Bf16Forward { taps: usize, c: usize },
    /// Panels of 32 rotated filters in bf16 with inputs and outputs swapped, for grad-input.
    Bf16GradInput,
    /// Padded, in the precision of a GPU.
    Cuda,
}

impl Weight {
    /// A weight with this value.
    pub fn new(value: Tensor) -> Weight {
        Weight { value, version: 0, packed: Mutex::default(), keep: true }
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Shape of the value.
    pub fn shape(&self) -> Shape {
        self.value.shape()
    }

    /// Replaces the value; packed copies become stale.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the shape differs.
    pub fn set(&mut self, value: Tensor) -> Result<()> {
        value.expect_shape("set", "the new value", self.shape())?;
        self.value = value;
        self.version += 1;
        Ok(())
    }

    /// The same weight in another shape, as when fc6 becomes a convolution; nothing is copied.
    ///
    /// # Errors
    /// [`crate::Error::Length`] if the number of elements differs.
    pub fn into_reshaped(self, shape: impl Into<Shape>) -> Result<Weight> {
        Ok(Weight {
            value: self.value.into_reshaped(shape)?,
            version: self.version + 1,
            packed: Mutex::default(),
            keep: self.keep,
        })
    }

    /// Drops the packed copies and keeps none from now on.
    fn drop_packed(&mut self) {
        self.keep = false;
        self.packed.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The elements, to change in place; increments the version.
    pub(crate) fn update(&mut self, op: &'static str) -> Result<&mut [f32]> {
        self.version += 1;
        self.value.cpu_mut(op, "weight")
    }

    /// GPU address of the value, and of its packed copy if the copy is current. The caller must update both
    /// in place; both get the new version. A copy that every step reads is therefore never repacked, and a
    /// captured step, which does not increment versions, keeps value and copy consistent.
    pub(crate) fn update_on_gpu(&mut self, op: &'static str) -> Result<(u64, Option<u64>)> {
        let pointer = self.value.cuda_memory_mut(op, "weight")?;
        let packed = self.packed.get_mut().unwrap_or_else(PoisonError::into_inner);
        let copy = packed.iter_mut().find(|d| d.kind == PackedKind::Cuda && d.version == self.version);
        self.version += 1;
        let copy = copy.and_then(|copy| match &*copy.storage {
            Storage::Cuda(buffer) => {
                copy.version = self.version;
                Some(buffer.pointer())
            }
            Storage::Cpu(_) | Storage::Blocked(_) => None,
        });
        Ok((pointer, copy))
    }

    /// The packed copy of this version, of `len` values. `make` fills a new buffer if the copy is missing or
    /// stale.
    pub(crate) fn packed(&self, kind: PackedKind, len: usize, make: impl FnOnce(&mut [f32])) -> Arc<Storage> {
        let made = self.packed_storage(kind, || {
            let mut buffer = self.value.device().cpu_context().memory.alloc_f32(len);
            make(buffer.as_f32_mut(len));
            Ok(Arc::new(Storage::from(buffer)))
        });
        match made {
            Ok(storage) => storage,
            Err(e) => unreachable!("packing in host memory cannot fail: {e}"),
        }
    }

    /// The packed copy of this version. `make` packs it if the copy is missing or stale.
    pub(crate) fn packed_storage(
        &self,
        kind: PackedKind,
        make: impl FnOnce() -> Result<Arc<Storage>>,
    ) -> Result<Arc<Storage>> {
        let mut all = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|d| d.kind == kind);
        if let Some(i) = place
            && all[i].version == self.version
        {
            return Ok(all[i].storage.clone());
        }
        // A stale copy is dropped first, so that the new one can reuse its memory.
        drop(place.map(|i| all.swap_remove(i)));
        let storage = make()?;
        if self.keep || kind == PackedKind::Cuda {
            all.push(Packed { kind, version: self.version, storage: storage.clone() });
        }
        Ok(storage)
    }
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({}, version {})", self.shape(), self.version)
    }
}

/// Kind of parameter, for rules such as "decay weights only".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// A filter bank or a matrix.
    Weight,
    /// A bias vector.
    Bias,
}

/// A named weight with its gradient.
#[derive(Debug)]
pub struct Parameter {
    /// Name, such as `conv1_1.weight` or `fc8.bias`.
    pub name: String,
    /// Weight or bias.
    pub kind: ParameterKind,
    /// Value and packed copies.
    pub weight: Weight,
    /// Whether training updates it.
    pub trainable: bool,
    grad: Option<Tensor>,
}

impl Parameter {
    /// A trainable parameter that has no gradient yet.
    pub fn new(name: String, kind: ParameterKind, value: Tensor) -> Parameter {
        Parameter { name, kind, weight: Weight::new(value), trainable: true, grad: None }
    }

    /// The gradient of the last backward pass, in the shape of the value.
    pub fn grad(&self) -> Option<&Tensor> {
        self.grad.as_ref()
    }

    /// The gradient, allocated on first use, for an operation that writes it. From then on the weight counts
    /// as in training and keeps no packed copies on a CPU.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
    pub fn grad_mut(&mut self) -> Result<&mut Tensor> {
        let grad = match self.grad.take() {
            Some(grad) => grad,
            None => {
                self.weight.drop_packed();
                Tensor::zeros(self.weight.shape(), self.weight.value().device())?
            }
        };
        Ok(self.grad.insert(grad))
    }

    /// Overwrites the gradient with `source`, or adds `source` to it.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Device`] if `source` is on another
    /// device.
    pub fn write_grad(&mut self, source: &Tensor, mode: GradMode) -> Result<()> {
        match mode {
            GradMode::Overwrite => self.grad_mut()?.copy_from(source),
            GradMode::Accumulate => self.grad_mut()?.add_from(source),
        }
    }

    /// The same parameter in another shape; its gradient is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Length`] if the number of elements differs.
    pub fn into_reshaped(self, shape: impl Into<Shape>) -> Result<Parameter> {
        Ok(Parameter { weight: self.weight.into_reshaped(shape)?, grad: None, ..self })
    }
}
