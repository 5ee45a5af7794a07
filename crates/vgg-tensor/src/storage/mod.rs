//! Storage of tensors: where their elements lie, and who still needs them.

mod arena;
mod gaps;

use std::ptr::NonNull;
use std::sync::Arc;

pub(crate) use arena::Arena;
pub(crate) use gaps::{Gap, Gaps};

use crate::cuda::CudaBuffer;

/// Where the elements of a tensor lie. Every operation matches on it once.
pub(crate) enum Storage {
    /// In host memory.
    Cpu(CpuBuffer),
    /// In the memory of a GPU.
    Cuda(CudaBuffer),
}

/// Aligned host memory that goes back to its arena when dropped.
pub(crate) struct CpuBuffer {
    start: NonNull<u8>,
    bytes: usize,
    arena: Arc<Arena>,
}

// SAFETY: the buffer owns its memory exclusively; access follows the usual borrow rules through `&self`/`&mut self`.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for CpuBuffer {}

impl CpuBuffer {
    /// The first `len` elements as `f32`.
    pub(crate) fn as_f32(&self, len: usize) -> &[f32] {
        assert!(len * 4 <= self.bytes);
        // SAFETY: the memory is aligned, initialised (zero when first mapped) and at least `len * 4` bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), len) }
    }

    /// The first `len` elements as `f32`, to write.
    pub(crate) fn as_f32_mut(&mut self, len: usize) -> &mut [f32] {
        assert!(len * 4 <= self.bytes);
        // SAFETY: as in `as_f32`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), len) }
    }

    /// The first `len` bytes.
    pub(crate) fn as_u8(&self, len: usize) -> &[u8] {
        assert!(len <= self.bytes);
        // SAFETY: as in `as_f32`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }

    /// The first `len` bytes, to write.
    pub(crate) fn as_u8_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.bytes);
        // SAFETY: as in `as_f32_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        self.arena.put(self.start, self.bytes);
    }
}

impl From<CpuBuffer> for Storage {
    fn from(buffer: CpuBuffer) -> Storage {
        Storage::Cpu(buffer)
    }
}

impl From<CudaBuffer> for Storage {
    fn from(buffer: CudaBuffer) -> Storage {
        Storage::Cuda(buffer)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}
