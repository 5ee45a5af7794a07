//! Memory of tensors on a CPU: one arena of a device, from which buffers are cut and to which they return.
//!
//! The arena is address space; a page takes memory when it is first written. Buffers are cut from the smallest gap that
//! is large enough, so they are packed from the bottom, and a step that asks for the same sizes in the same order gets
//! the same places again: after the first step no page is new and the system is not asked for memory.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use super::free_list::FreeList;

/// Alignment of every buffer, in bytes: a cache line, and the widest vector.
const ALIGN: usize = 64;
/// Address space of an arena, if the system gives that much.
const ADDRESS_SPACE: usize = if cfg!(all(unix, target_pointer_width = "64")) { 1 << 36 } else { 64 << 20 };

/// The memory of a device.
#[derive(Default)]
pub(crate) struct Arena {
    maps: Mutex<Maps>,
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

#[derive(Default)]
struct Maps {
    maps: Vec<Map>,
    in_use_bytes: usize,
}

/// One stretch of address space.
struct Map {
    memory: MmapMut,
    free: FreeList,
}

impl Arena {
    /// A buffer of at least `bytes` bytes. Its contents are whatever an earlier user left, or zero.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> CpuBuffer {
        if cfg!(vgg_exact_buffers) {
            let start = exact::allocate(bytes);
            return CpuBuffer { start, bytes, arena: self.clone() };
        }
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut maps = self.lock();
        let start = maps.take(bytes);
        drop(maps);
        CpuBuffer { start, bytes, arena: self.clone() }
    }

    /// A buffer for `len` values of `f32`.
    pub(crate) fn take_f32(self: &Arc<Self>, len: usize) -> CpuBuffer {
        self.take(len * 4)
    }

    /// Fills what no buffer has, as far as it was ever used, with bytes of ones, which are NaN.
    pub(crate) fn poison(&self) {
        for map in &mut self.lock().maps {
            let reached = map.free.high_water();
            for gap in map.free.iter() {
                let end = (gap.start + gap.len).min(reached);
                if gap.start < end {
                    map.memory[gap.start..end].fill(0xff);
                }
            }
        }
    }

    /// Bytes in buffers now, and the most that were ever spanned.
    pub(crate) fn usage_bytes(&self) -> (usize, usize) {
        let maps = self.lock();
        (maps.in_use_bytes, maps.maps.iter().map(|map| map.free.high_water()).sum())
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, start: NonNull<u8>, bytes: usize) {
        if cfg!(vgg_exact_buffers) {
            return exact::free(start, bytes);
        }
        let mut maps = self.lock();
        maps.in_use_bytes -= bytes;
        let at = start.as_ptr() as usize;
        let home = maps.maps.iter_mut().find(|map| map.range().contains(&at));
        if let Some(map) = home {
            map.free.free(at - map.range().start, bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        // Nothing is half done between any two operations, so a panic elsewhere leaves it usable.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn take(&mut self, bytes: usize) -> NonNull<u8> {
        let found = self.maps.iter_mut().find_map(|map| map.take(bytes));
        let start = found.unwrap_or_else(|| {
            let mut map = Map::new(bytes);
            let Some(start) = map.take(bytes) else {
                unreachable!("a map has room for what it was made for")
            };
            self.maps.push(map);
            start
        });
        self.in_use_bytes += bytes;
        start
    }
}

impl Map {
    /// Address space for at least one buffer of `bytes`.
    fn new(bytes: usize) -> Map {
        let map = |len| MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let smaller = bytes.max(64 << 20);
        let memory = map(ADDRESS_SPACE.max(bytes)).or_else(|_| map(smaller)).or_else(|_| map(bytes));
        let memory = memory.unwrap_or_else(|e| panic!("no memory for a buffer of {bytes} bytes: {e}"));
        // Large pages save much of the address translation; where there are none, small ones do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let free = FreeList::new(memory.len());
        Map { memory, free }
    }

    fn range(&self) -> std::ops::Range<usize> {
        let start = self.memory.as_ptr() as usize;
        start..start + self.memory.len()
    }

    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.free.alloc(bytes)?;
        // The gap lies within the map.
        NonNull::new(self.memory.as_mut_ptr().wrapping_add(at))
    }
}

/// Buffers of their own and of exactly their length, so that a sanitizer or Miri sees every step beyond: compile with
/// `--cfg vgg_exact_buffers`.
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
    fn a_returned_buffer_is_used_again() {
        let arena = Arc::new(Arena::default());
        let first = arena.take_f32(1000);
        let address = first.start;
        assert_eq!(address.as_ptr() as usize % ALIGN, 0);
        assert!(first.as_f32(1000).iter().all(|v| *v == 0.0));
        drop(first);
        assert_eq!(arena.take_f32(900).start, address);
        assert_eq!(arena.usage_bytes(), (0, 4032));
    }
}
