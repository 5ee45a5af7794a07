//! Weights, what kernels derive from them, and parameters, which have a gradient besides.

use std::sync::{Arc, Mutex, PoisonError};

use crate::tensor::Storage;
use crate::{GradMode, Result, Shape, Tensor};

/// A weight tensor and the forms that kernels derive from it, such as packed filter panels.
///
/// Every change of the value makes a new version; a packed form that was made from an older version is made
/// anew when it is asked for.
pub struct Weight {
    value: Tensor,
    version: u64,
    packed: Mutex<Vec<Packed>>,
    /// Whether packed forms are kept for the next use. Not in training on a CPU, where the next step makes them stale
    /// and their memory, twice that of the weights, is better used otherwise; a GPU's step renews the one it has.
    keep: bool,
}

struct Packed {
    kind: PackedKind,
    version: u64,
    storage: Arc<Storage>,
}

/// Which packed kind: one per algorithm and pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedKind {
    /// Panels of 16 filters for the direct convolution.
    DirectForward,
    /// The same of the rotated, swapped filters, for the gradient by data.
    DirectGradInput,
    /// Transformed filters of Winograd's convolution with tiles of this many outputs.
    WinogradForward(usize),
    /// The same of the rotated, swapped filters.
    WinogradGradInput(usize),
    /// Padded and in the precision of a GPU.
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

    /// Replaces the value.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the shape differs.
    pub fn set(&mut self, value: Tensor) -> Result<()> {
        value.expect_shape("set", "the new value", self.shape())?;
        self.value = value;
        self.version += 1;
        Ok(())
    }

    /// The same weight under another shape, as when fc6 becomes a convolution; nothing is copied.
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

    /// Forgets the packed forms, and keeps none from now on.
    fn drop_packed(&mut self) {
        self.keep = false;
        self.packed.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The elements, to change in place; a new version.
    pub(crate) fn update(&mut self, op: &'static str) -> Result<&mut [f32]> {
        self.version += 1;
        self.value.cpu_mut(op, "weight")
    }

    /// Where the value lies on a GPU, to change in place, and its copy there, if it has one of this version, to change
    /// with it; a new version of both. So a copy that is used in every step is never made anew, and a captured step, which
    /// counts no versions, leaves both as they belong together.
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
            Storage::Cpu(_) => None,
        });
        Ok((pointer, copy))
    }

    /// The packed form of this version, made by `make` into a buffer of `len` values if it is not there yet.
    pub(crate) fn packed(&self, kind: PackedKind, len: usize, make: impl FnOnce(&mut [f32])) -> Arc<Storage> {
        let made = self.packed_storage(kind, || {
            let mut buffer = self.value.device().cpu_context().memory.take_f32(len);
            make(buffer.as_f32_mut(len));
            Ok(Arc::new(Storage::from(buffer)))
        });
        match made {
            Ok(storage) => storage,
            Err(e) => unreachable!("in host memory nothing can fail: {e}"),
        }
    }

    /// The packed form of this version, made by `make` if it is not there yet.
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
        // What is stale goes first, so that its memory can be had again.
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

/// What a parameter is, for rules such as "decay weights only".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// A filter or a matrix.
    Weight,
    /// A bias vector.
    Bias,
}

/// A named weight with its gradient.
#[derive(Debug)]
pub struct Parameter {
    /// Such as `conv1_1.weight` or `fc8.bias`.
    pub name: String,
    /// Weight or bias.
    pub kind: ParameterKind,
    /// Value and packed forms.
    pub weight: Weight,
    /// Whether training changes it.
    pub trainable: bool,
    grad: Option<Tensor>,
}

impl Parameter {
    /// A trainable parameter without a gradient yet.
    pub fn new(name: String, kind: ParameterKind, value: Tensor) -> Parameter {
        Parameter { name, kind, weight: Weight::new(value), trainable: true, grad: None }
    }

    /// The gradient of the last backward pass, in the shape of the value.
    pub fn grad(&self) -> Option<&Tensor> {
        self.grad.as_ref()
    }

    /// The gradient's memory, made on first use, for an operation that writes it. From then on the weight is taken to
    /// be in training and keeps no packed forms.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] on a GPU.
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

    /// Writes a bias gradient from channel sums.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the shapes differ.
    pub fn write_grad(&mut self, source: &Tensor, mode: GradMode) -> Result<()> {
        match mode {
            GradMode::Overwrite => self.grad_mut()?.copy_from(source),
            GradMode::Accumulate => self.grad_mut()?.add_from(source),
        }
    }

    /// The same parameter under another shape; the gradient is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Length`] if the number of elements differs.
    pub fn into_reshaped(self, shape: impl Into<Shape>) -> Result<Parameter> {
        Ok(Parameter { weight: self.weight.into_reshaped(shape)?, grad: None, ..self })
    }
}
