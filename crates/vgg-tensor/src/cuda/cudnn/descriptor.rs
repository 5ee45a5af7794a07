//! The descriptors of cuDNN's backend API, which are sets of attributes.

use std::ffi::c_void;

use cudarc::cudnn::sys;

use crate::{Error, Result};

use cudarc::cudnn::sys::cudnnBackendAttributeType_t as Type;

pub(super) use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendDescriptorType_t as Kind,
};

/// A descriptor, destroyed on drop.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a descriptor is a value in host memory without ties to a thread.
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// Creates an empty descriptor.
    pub(super) fn new(kind: Kind) -> Result<Descriptor> {
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: cuDNN writes the handle of the descriptor that it creates.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut descriptor) };
        check("cudnnBackendCreateDescriptor", status)?;
        Ok(Descriptor(descriptor))
    }

    /// Sets an attribute.
    pub(super) fn set<V: Value>(self, name: Name, values: &[V]) -> Result<Descriptor> {
        let (len, values) = (values.len() as i64, values.as_ptr().cast::<c_void>());
        // SAFETY: `V::TYPE` describes the layout of the values; cuDNN copies them and rejects a type that is
        // not the attribute's.
        let status = unsafe { sys::cudnnBackendSetAttribute(self.0, name, V::TYPE, len, values) };
        check("cudnnBackendSetAttribute", status)?;
        Ok(self)
    }

    /// Sets an attribute to integers.
    pub(super) fn integers(self, name: Name, values: &[i64]) -> Result<Descriptor> {
        self.set(name, values)
    }

    /// Sets an attribute to a handle, which must outlive everything that is created from the descriptor.
    pub(super) fn handle(self, name: Name, handle: &sys::cudnnHandle_t) -> Result<Descriptor> {
        self.set(name, &[Handle(*handle)])
    }

    /// Sets an attribute to another descriptor.
    pub(super) fn part(self, name: Name, part: &Descriptor) -> Result<Descriptor> {
        self.set(name, &[Raw(part.0)])
    }

    /// Sets an attribute to several descriptors.
    pub(super) fn parts(self, name: Name, parts: &[Descriptor]) -> Result<Descriptor> {
        self.set(name, &parts.iter().map(|part| Raw(part.0)).collect::<Vec<Raw>>())
    }

    /// Finalises the descriptor; cuDNN validates it.
    pub(super) fn finish(self) -> Result<Descriptor> {
        // SAFETY: the descriptor exists.
        check("cudnnBackendFinalize", unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// Number of integers in an attribute.
    pub(super) fn count<V: Bits>(&self, name: Name) -> Result<usize> {
        self.read::<V>(name, &mut [])
    }

    /// Reads the integers of an attribute into `values`, as far as there is room, and returns their number.
    pub(super) fn get<V: Bits>(&self, name: Name, values: &mut [V]) -> Result<usize> {
        self.read(name, values)
    }

    /// Number of descriptors in an attribute.
    pub(super) fn count_parts(&self, name: Name) -> Result<usize> {
        self.read::<Raw>(name, &mut [])
    }

    /// Fills descriptors from an attribute and returns the number of filled ones.
    pub(super) fn get_parts(&self, name: Name, parts: &[Descriptor]) -> Result<usize> {
        // cuDNN writes to the descriptors behind the handles, not to the handles.
        self.read(name, &mut parts.iter().map(|part| Raw(part.0)).collect::<Vec<Raw>>())
    }

    fn read<V: Value>(&self, name: Name, values: &mut [V]) -> Result<usize> {
        let mut count = 0;
        let room = values.len() as i64;
        let values = if values.is_empty() { std::ptr::null_mut() } else { values.as_mut_ptr().cast() };
        // SAFETY: there is room for that many values of the type; callers read only integers, for which any
        // bits are valid.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(self.0, name, V::TYPE, room, &mut count, values) };
        check("cudnnBackendGetAttribute", status)?;
        Ok(count as usize)
    }

    pub(super) fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once. It fails only for an invalid descriptor.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// A type of attribute values.
///
/// # Safety
/// `TYPE` must be cuDNN's type for values with this layout.
pub(super) unsafe trait Value: Copy {
    const TYPE: Type;
}

/// Integers, for which any bits that cuDNN writes are valid.
pub(super) trait Bits: Value {}

/// A raw descriptor as an attribute value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw(sys::cudnnBackendDescriptor_t);

/// A cuDNN handle as an attribute value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Handle(sys::cudnnHandle_t);

/// A value of cuDNN's enumeration of numerical notes, to which a newer cuDNN may add values.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct NoteNumber(pub(super) i32);

/// Implements [`Value`] for types.
macro_rules! values {
    ($($kind:ty: $name:ident),* $(,)?) => {
        $(
            // SAFETY: this is how cuDNN's documentation describes the type.
            unsafe impl Value for $kind {
                const TYPE: Type = Type::$name;
            }
        )*
    };
}

values! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    bool: CUDNN_TYPE_BOOLEAN,
    u8: CUDNN_TYPE_CHAR,
    *mut c_void: CUDNN_TYPE_VOID_PTR,
    Raw: CUDNN_TYPE_BACKEND_DESCRIPTOR,
    Handle: CUDNN_TYPE_HANDLE,
    NoteNumber: CUDNN_TYPE_NUMERICAL_NOTE,
    sys::cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    sys::cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    sys::cudnnPointwiseMode_t: CUDNN_TYPE_POINTWISE_MODE,
    sys::cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE,
}

impl Bits for i64 {}
impl Bits for u8 {}
impl Bits for NoteNumber {}

/// Converts a status to an error with cuDNN's message.
pub(super) fn check(call: &'static str, status: sys::cudnnStatus_t) -> Result<()> {
    if status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    // SAFETY: cuDNN writes at most that many bytes.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    Err(Error::Cuda { call, reason: format!("{status:?} {}", String::from_utf8_lossy(&text[..end])) })
}
