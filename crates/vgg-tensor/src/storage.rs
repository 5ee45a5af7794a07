//! Memory of tensors: 64-byte-aligned buffers from a pool that keeps what is given back.
//!
//! A step of training asks for the same sizes again and again, so after the first step every request is served
//! from the pool and the system allocator is not called. Sizes are rounded up to eighths of a power of two, so
//! that evaluation at many image sizes needs a bounded number of buffers.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer, in bytes: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Where the elements of a tensor lie. Every operation matches on it once.
pub(crate) enum Storage {
    /// In host memory.
    Cpu(CpuBuffer),
}

/// Aligned host memory that goes back to its pool when dropped.
pub(crate) struct CpuBuffer {
    start: NonNull<u8>,
    bytes: usize,
    pool: Arc<MemoryPool>,
}

// SAFETY: the buffer owns its memory exclusively; access follows the usual borrow rules through `&self`/`&mut self`.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for CpuBuffer {}

impl CpuBuffer {
    /// The first `len` elements as `f32`.
    pub(crate) fn as_f32(&self, len: usize) -> &[f32] {
        assert!(len * 4 <= self.bytes);
        // SAFETY: the memory is aligned, initialised (zeroed when first allocated) and at least `len * 4` bytes.
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
        self.pool.put(self.start, self.bytes);
    }
}

/// Free buffers by size. Owned by a device.
#[derive(Default)]
pub(crate) struct MemoryPool {
    free: Mutex<HashMap<usize, Vec<Free>>>,
}

struct Free(NonNull<u8>);

// SAFETY: a free buffer is owned by the pool alone.
unsafe impl Send for Free {}

impl MemoryPool {
    /// A buffer of at least `bytes` bytes. Its contents are whatever an earlier user left, or zero.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> CpuBuffer {
        let bytes = size_class(bytes);
        let reused = self.lock().get_mut(&bytes).and_then(Vec::pop);
        let start = match reused {
            Some(Free(start)) => start,
            None => allocate(bytes),
        };
        CpuBuffer { start, bytes, pool: self.clone() }
    }

    /// A buffer for `len` values of `f32`.
    pub(crate) fn take_f32(self: &Arc<Self>, len: usize) -> CpuBuffer {
        self.take(len * 4)
    }

    /// Gives every free buffer back to the system.
    pub(crate) fn trim(&self) {
        for (bytes, list) in self.lock().drain() {
            for Free(start) in list {
                // SAFETY: allocated by `allocate` with this layout, and in no other hands.
                unsafe { dealloc(start.as_ptr(), layout(bytes)) };
            }
        }
    }

    fn put(&self, start: NonNull<u8>, bytes: usize) {
        self.lock().entry(bytes).or_default().push(Free(start));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<Free>>> {
        // The map is consistent between any two operations, so a panic elsewhere leaves it usable.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoryPool {
    fn drop(&mut self) {
        self.trim();
    }
}

/// Rounds up to an eighth of a power of two, at least one cache line.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(ALIGN);
    let step = (bytes.next_power_of_two() / 16).max(ALIGN);
    bytes.div_ceil(step) * step
}

fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, ALIGN) {
        Ok(layout) => layout,
        // Only a size near isize::MAX gets here, which shapes are checked against.
        Err(_) => panic!("a buffer of {bytes} bytes is larger than the address space"),
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = layout(bytes);
    // SAFETY: the size is at least one cache line.
    let start = unsafe { alloc_zeroed(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_used_again() {
        let pool = Arc::new(MemoryPool::default());
        let first = pool.take_f32(1000);
        let address = first.start;
        assert_eq!(address.as_ptr() as usize % ALIGN, 0);
        drop(first);
        assert_eq!(pool.take_f32(1001).start, address, "same size class");
    }

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        for bytes in [1, 64, 65, 1000, 4096, 100_000, 123_456_789] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGN));
            assert!(class <= bytes + (bytes / 8).max(ALIGN), "{bytes} -> {class}");
        }
    }
}
