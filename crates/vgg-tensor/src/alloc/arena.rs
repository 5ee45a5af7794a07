//! The arena of a CPU device: tensors allocate their buffers from it and return them on drop.
//!
//! An arena reserves address space; the system commits a page when it is first written. Allocation is
//! best-fit and packs buffers from the lowest address, so a step that allocates the same sizes in the same
//! order gets the same addresses. After the first step, no new page is committed and no memory is requested
//! from the system.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use super::free_list::FreeList;
use crate::{Error, Result};

/// Alignment of every buffer, in bytes: one cache line, and the widest SIMD vector.
const ALIGN: usize = 64;
/// Address space of a mapping, in bytes, if the system grants that much.
const ADDRESS_SPACE: usize = if cfg!(all(unix, target_pointer_width = "64")) { 1 << 36 } else { 64 << 20 };

/// The memory of a CPU device.
#[derive(Default)]
pub(crate) struct Arena {
    maps: Mutex<Maps>,
}

/// Aligned host memory that returns to its arena on drop.
pub(crate) struct CpuBuffer {
    start: NonNull<u8>,
    bytes: usize,
    arena: Arc<Arena>,
}

// SAFETY: the buffer owns its memory exclusively; access follows the usual borrow rules through `&self`/`&mut
// self`.
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

    /// The first `len` elements as mutable `f32`.
    pub(crate) fn as_f32_mut(&mut self, len: usize) -> &mut [f32] {
        assert!(len * 4 <= self.bytes);
        // SAFETY: as in `as_f32`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), len) }
    }

    /// The first `len` elements as 16-bit values, such as bf16.
    pub(crate) fn as_u16(&self, len: usize) -> &[u16] {
        assert!(len * 2 <= self.bytes);
        // SAFETY: as in `as_f32`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), len) }
    }

    /// The first `len` elements as mutable 16-bit values.
    pub(crate) fn as_u16_mut(&mut self, len: usize) -> &mut [u16] {
        assert!(len * 2 <= self.bytes);
        // SAFETY: as in `as_f32_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), len) }
    }

    /// The first `len` bytes.
    pub(crate) fn as_u8(&self, len: usize) -> &[u8] {
        assert!(len <= self.bytes);
        // SAFETY: as in `as_f32`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }

    /// The first `len` bytes, mutable.
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

/// What an allocation that fails unwinds with.
struct OutOfMemory {
    bytes: usize,
}

/// Calls `f`, and turns an allocation in it that fails into an error.
///
/// # Errors
/// [`Error::OutOfHostMemory`] with the size of the allocation.
pub(crate) fn or_out_of_memory<R>(f: impl FnOnce() -> R) -> Result<R> {
    // The memory that `f` was writing is dropped, or its contents do not matter after an error.
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match panic.downcast::<OutOfMemory>() {
        Ok(failed) => Error::OutOfHostMemory { bytes: failed.bytes },
        Err(other) => resume_unwind(other),
    })
}

#[derive(Default)]
struct Maps {
    maps: Vec<Map>,
    in_use_bytes: usize,
}

/// A mapping of address space, and its free ranges.
struct Map {
    memory: MmapMut,
    free_list: FreeList,
}

impl Arena {
    /// Allocates at least `bytes` bytes. The contents are zero or left over from an earlier buffer.
    ///
    /// If the system has no memory, this unwinds to [`or_out_of_memory`], which every operation calls: kernels need
    /// scratch memory deep inside, and their results would be lost anyway.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize) -> CpuBuffer {
        if cfg!(vgg_exact_buffers) {
            let start = exact::allocate(bytes);
            return CpuBuffer { start, bytes, arena: self.clone() };
        }
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut maps = self.lock();
        let start = maps.alloc(bytes);
        drop(maps);
        CpuBuffer { start, bytes, arena: self.clone() }
    }

    /// As [`Arena::alloc`].
    ///
    /// # Errors
    /// [`Error::OutOfHostMemory`] if the system has no memory.
    pub(crate) fn try_alloc(self: &Arc<Self>, bytes: usize) -> Result<CpuBuffer> {
        or_out_of_memory(|| self.alloc(bytes))
    }

    /// Allocates a buffer for `len` values of `f32`.
    pub(crate) fn alloc_f32(self: &Arc<Self>, len: usize) -> CpuBuffer {
        self.alloc(len * 4)
    }

    /// Fills all free memory below the high-water mark with the byte 0xff, which makes every `f32` NaN.
    pub(crate) fn poison(&self) {
        for map in &mut self.lock().maps {
            let reached = map.free_list.high_water();
            for gap in map.free_list.iter() {
                let end = (gap.start + gap.len).min(reached);
                if gap.start < end {
                    map.memory[gap.start..end].fill(0xff);
                }
            }
        }
    }

    /// Bytes allocated now, and the high-water mark in bytes.
    pub(crate) fn usage_bytes(&self) -> (usize, usize) {
        let maps = self.lock();
        (maps.in_use_bytes, maps.maps.iter().map(|map| map.free_list.high_water()).sum())
    }

    /// Frees a buffer.
    pub(super) fn put(&self, start: NonNull<u8>, bytes: usize) {
        if cfg!(vgg_exact_buffers) {
            return exact::free(start, bytes);
        }
        let mut maps = self.lock();
        maps.in_use_bytes -= bytes;
        let at = start.as_ptr() as usize;
        let home = maps.maps.iter_mut().find(|map| map.range().contains(&at));
        if let Some(map) = home {
            map.free_list.free(at - map.range().start, bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        // Every operation leaves the state consistent, so a poisoned lock is safe to use.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn alloc(&mut self, bytes: usize) -> NonNull<u8> {
        let found = self.maps.iter_mut().find_map(|map| map.alloc(bytes));
        let start = found.unwrap_or_else(|| {
            let mut map = Map::new(bytes);
            let Some(start) = map.alloc(bytes) else {
                unreachable!("a new mapping has room for its first buffer")
            };
            self.maps.push(map);
            start
        });
        self.in_use_bytes += bytes;
        start
    }
}

impl Map {
    /// Reserves address space for at least one buffer of `bytes` bytes.
    fn new(bytes: usize) -> Map {
        let map = |len| MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let smaller = bytes.max(64 << 20);
        let memory = map(ADDRESS_SPACE.max(bytes)).or_else(|_| map(smaller)).or_else(|_| map(bytes));
        let memory = memory.unwrap_or_else(|_| resume_unwind(Box::new(OutOfMemory { bytes })));
        // Huge pages reduce TLB misses. Without them, normal pages are used.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let free_list = FreeList::new(memory.len());
        Map { memory, free_list }
    }

    fn range(&self) -> std::ops::Range<usize> {
        let start = self.memory.as_ptr() as usize;
        start..start + self.memory.len()
    }

    fn alloc(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.free_list.alloc(bytes)?;
        // The range lies within the mapping.
        NonNull::new(self.memory.as_mut_ptr().wrapping_add(at))
    }
}

/// A separate allocation of the exact size for every buffer, so that a sanitizer or Miri detects any access
/// out of bounds. Enabled by `--cfg vgg_exact_buffers`.
mod exact {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes.max(1), super::ALIGN).unwrap_or(Layout::new::<u8>())
    }

    pub(super) fn allocate(bytes: usize) -> NonNull<u8> {
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout(bytes)) };
        NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout(bytes)))
    }

    pub(super) fn free(start: NonNull<u8>, bytes: usize) {
        // SAFETY: allocated above with this layout.
        unsafe { dealloc(start.as_ptr(), layout(bytes)) }
    }
}

#[cfg(all(test, not(vgg_exact_buffers)))]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_is_reused() {
        let arena = Arc::new(Arena::default());
        let first = arena.alloc_f32(1000);
        let address = first.start;
        assert_eq!(address.as_ptr() as usize % ALIGN, 0);
        assert!(first.as_f32(1000).iter().all(|v| *v == 0.0));
        drop(first);
        assert_eq!(arena.alloc_f32(900).start, address);
        assert_eq!(arena.usage_bytes(), (0, 4032));
    }

    /// The size is too large for any address space.
    #[test]
    fn an_allocation_that_fails_is_an_error_with_its_size() {
        let arena = Arc::new(Arena::default());
        let failed = arena.try_alloc(1 << 60).err().unwrap();
        assert!(matches!(failed, Error::OutOfHostMemory { bytes } if bytes == 1 << 60), "{failed}");
        // As the pool of threads does: the caller resumes the unwinding of a thread.
        let failed = or_out_of_memory(|| {
            let on_thread = std::thread::scope(|scope| scope.spawn(|| drop(arena.alloc(1 << 60))).join());
            on_thread.unwrap_or_else(|panic| resume_unwind(panic))
        });
        assert!(matches!(failed, Err(Error::OutOfHostMemory { bytes }) if bytes == 1 << 60));
        assert_eq!(arena.usage_bytes().0, 0);
        // Other panics go on.
        let panic = catch_unwind(|| or_out_of_memory(|| panic!("another")));
        assert_eq!(*panic.err().unwrap().downcast::<&str>().unwrap(), "another");
    }
}
