//! Parallel loops over tasks on the threads of a CPU device.

use std::marker::PhantomData;
use std::sync::Arc;

use super::amx::TileIsa;
use super::{Isa, ThreadPool};
use crate::ConvAlgorithm;
use crate::alloc::{Arena, CpuBuffer};

/// The parts of a CPU device that kernels use.
#[derive(Clone, Copy)]
pub(crate) struct Cpu<'a> {
    pub(crate) isa: Isa,
    pub(crate) conv: ConvAlgorithm,
    /// The unit that multiplies bf16 tiles; `None` on a device that computes in f32.
    pub(crate) bf16: Option<TileIsa>,
    /// Whether this is a dry run: memory is planned and tasks are not run.
    pub(crate) dry_run: bool,
    pub(crate) threads: &'a ThreadPool,
    pub(crate) memory: &'a Arc<Arena>,
}

impl Cpu<'_> {
    /// The tile unit of an operation on bf16 activations.
    pub(crate) fn tiles(&self) -> TileIsa {
        match self.bf16 {
            Some(tiles) => tiles,
            None => unreachable!("the device computes in f32"),
        }
    }

    /// Runs `task(0), task(1), .. task(n - 1)` in any order on the device's threads.
    ///
    /// The caller must split the work by shape alone: results are then bitwise identical for any thread
    /// count.
    pub(crate) fn for_each(&self, n: usize, task: impl Fn(usize) + Sync + Send) {
        if !self.dry_run {
            self.threads.run(n, &task);
        }
    }

    /// As [`Cpu::for_each`]; each task gets scratch memory of `len` values with arbitrary contents.
    pub(crate) fn for_each_with_scratch(
        &self,
        n: usize,
        len: usize,
        task: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) {
        if self.dry_run {
            // As in a real run, all tasks that run at the same time hold their scratch memory.
            let _all: Vec<Scratch> = (0..n.min(self.threads.count())).map(|_| self.scratch(len)).collect();
            return;
        }
        self.for_each(n, |i| task(i, &mut self.scratch(len)));
    }

    /// Runs `task(i, chunk)` over consecutive chunks of `data`.
    pub(crate) fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        let (len, shared) = (data.len(), SharedMut::new(data));
        self.for_each(len.div_ceil(chunk), |i| {
            let start = i * chunk;
            // SAFETY: chunks of different tasks do not overlap, and each lies within the data.
            task(i, unsafe { shared.slice(start, chunk.min(len - start)) });
        });
    }

    /// Allocates scratch memory of `len` values from the arena. Its contents are arbitrary.
    pub(crate) fn scratch(&self, len: usize) -> Scratch {
        Scratch { buffer: self.memory.alloc_f32(len), len }
    }
}

/// Scratch memory, which returns to the arena on drop.
pub(crate) struct Scratch {
    buffer: CpuBuffer,
    len: usize,
}

impl std::ops::Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.buffer.as_f32(self.len)
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.buffer.as_f32_mut(self.len)
    }
}

/// A mutable slice of which several tasks write disjoint parts.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    _data: PhantomData<&'a mut [T]>,
}

// SAFETY: the tasks that share it write disjoint parts, by the contracts of `slice` and `pointer`.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        SharedMut { start: data.as_mut_ptr(), len: data.len(), _data: PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No two live parts may overlap.
    #[allow(clippy::mut_from_ref, reason = "the caller keeps the parts disjoint")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len, "part {start}+{len} of {}", self.len);
        // SAFETY: inside the slice by the assertion, disjoint from other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The start of the slice, for prefetching.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.start
    }

    /// A pointer to element `start`, for a part with gaps that spans `len` elements.
    ///
    /// # Safety
    /// Elements written through the pointer must not overlap elements that other tasks read or write.
    pub(crate) unsafe fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start + len <= self.len, "part {start}+{len} of {}", self.len);
        // SAFETY: inside the slice by the assertion.
        unsafe { self.start.add(start) }
    }
}
