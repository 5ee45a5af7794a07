//! Storage of tensors: where their elements lie, and who still needs them.

mod arena;
mod gaps;

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

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

impl Storage {
    /// Where counters of this storage's device are kept.
    fn counters(&self) -> &Counters {
        match self {
            Storage::Cpu(buffer) => &buffer.arena.counters,
            Storage::Cuda(buffer) => buffer.counters(),
        }
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

/// A counted reference to storage. The last one gives the memory back to the arena, and the counter with it, so that a
/// steady step asks the system for nothing at all.
#[derive(Clone)]
pub(crate) struct Shared(Option<Counter>);

/// Counts references. It is empty while the arena keeps it.
type Counter = Arc<Option<Storage>>;

/// Counters of storage that is gone, for the next.
#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Mutex<Vec<Counter>>>);

impl Counters {
    fn take(&self) -> Counter {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn keep(&self, counter: Counter) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counter);
    }
}

impl Shared {
    /// The first reference to a buffer.
    pub(crate) fn new(buffer: impl Into<Storage>) -> Shared {
        let storage = buffer.into();
        let mut counter = storage.counters().take();
        match Arc::get_mut(&mut counter) {
            Some(place) => *place = Some(storage),
            None => unreachable!("an arena's counters count nothing"),
        }
        Shared(Some(counter))
    }

    /// The storage, to write, if this is the only reference.
    pub(crate) fn get_mut(&mut self) -> Option<&mut Storage> {
        self.0.as_mut().and_then(Arc::get_mut).and_then(Option::as_mut)
    }
}

impl std::ops::Deref for Shared {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        match self.0.as_deref() {
            Some(Some(storage)) => storage,
            _ => unreachable!("only dropping takes the storage out"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(mut counter) = self.0.take() else { return };
        // Of two threads that drop the last two references at once, both may be refused here. Then the storage goes
        // as any value does, and the counter with it.
        if let Some(storage) = Arc::get_mut(&mut counter).and_then(Option::take) {
            let counters = storage.counters().clone();
            drop(storage);
            counters.keep(counter);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}
