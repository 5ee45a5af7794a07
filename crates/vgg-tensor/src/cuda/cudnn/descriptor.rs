//! The descriptors of cuDNN's backend interface, which are sets of attributes.

use std::ffi::c_void;

use cudarc::cudnn::sys;

use crate::{Error, Result};

pub(super) use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind,
};

/// A descriptor, destroyed when dropped.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a descriptor is a value in host memory without ties to a thread.
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// An empty descriptor.
    pub(super) fn new(kind: Kind) -> Result<Descriptor> {
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: cuDNN writes the handle of what it makes.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut descriptor) };
        check("cudnnBackendCreateDescriptor", status)?;
        Ok(Descriptor(descriptor))
    }

    /// Sets an attribute; `kind` must be what `V` is.
    pub(super) fn set<V>(self, name: Name, kind: Type, values: &[V]) -> Result<Descriptor> {
        let values_at: *const c_void = values.as_ptr().cast();
        // SAFETY: the values are of the attribute's type by the callers, who stand in this module's folder.
        let status =
            unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, values.len() as i64, values_at) };
        check("cudnnBackendSetAttribute", status)?;
        Ok(self)
    }

    /// Sets integers.
    pub(super) fn integers(self, name: Name, values: &[i64]) -> Result<Descriptor> {
        self.set(name, Type::CUDNN_TYPE_INT64, values)
    }

    /// Sets another descriptor.
    pub(super) fn part(self, name: Name, part: &Descriptor) -> Result<Descriptor> {
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[part.0])
    }

    /// Sets several descriptors.
    pub(super) fn parts(self, name: Name, parts: &[Descriptor]) -> Result<Descriptor> {
        let raw: Vec<sys::cudnnBackendDescriptor_t> = parts.iter().map(|part| part.0).collect();
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    /// Closes the descriptor: cuDNN checks it.
    pub(super) fn finish(self) -> Result<Descriptor> {
        // SAFETY: the descriptor exists.
        check("cudnnBackendFinalize", unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// How many values an attribute has.
    pub(super) fn count(&self, name: Name, kind: Type) -> Result<usize> {
        let mut count = 0;
        // SAFETY: no values are asked for.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, 0, &mut count, std::ptr::null_mut()) };
        check("cudnnBackendGetAttribute", status)?;
        Ok(count as usize)
    }

    /// Values of an attribute, as many as there are and `values` has room for.
    pub(super) fn get<V: Copy>(&self, name: Name, kind: Type, values: &mut [V]) -> Result<usize> {
        let mut count = 0;
        let (room, values) = (values.len() as i64, values.as_mut_ptr().cast());
        // SAFETY: `values` has room for `room` values of the attribute's type, by the callers.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &mut count, values) };
        check("cudnnBackendGetAttribute", status)?;
        Ok(count as usize)
    }

    /// Fills descriptors from an attribute; how many were.
    pub(super) fn get_parts(&self, name: Name, parts: &[Descriptor]) -> Result<usize> {
        let mut raw: Vec<sys::cudnnBackendDescriptor_t> = parts.iter().map(|part| part.0).collect();
        self.get(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)
    }

    pub(super) fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. It can fail only for what is none.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// An error with what cuDNN says of it.
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
