//! The arena of a GPU: one range of address space per device, backed with memory up to the high-water mark.
//!
//! Work on a device runs in order on one stream, so a buffer may be freed while a kernel still reads it: the
//! next owner of the memory writes to it later. A captured graph uses memory by address. While it exists, no
//! other buffer gets memory that was in use during the capture, and memory returns to the driver only when
//! the device is closed.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, result, sys};

use super::Format;
use super::error::cuda_error;
use crate::alloc::{FreeList, FreeRange};
use crate::{Error, Result};

/// Alignment of every buffer, in bytes.
const ALIGN: usize = 256;
/// Memory is requested from the driver in multiples of this many bytes.
const STEP: usize = 64 << 20;

/// Device memory that returns to its arena on drop.
pub(crate) struct CudaBuffer {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    format: Format,
    /// Number of captures before the buffer was allocated.
    captures_before: u64,
    arena: Arc<CudaArena>,
}

impl CudaBuffer {
    pub(crate) fn pointer(&self) -> sys::CUdeviceptr {
        self.pointer
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        self.arena.put(self);
    }
}

/// The memory of a GPU.
pub(crate) struct CudaArena {
    context: Arc<CudaContext>,
    base: sys::CUdeviceptr,
    reserved: usize,
    /// Whether the addresses are backed with memory; `false` on a dry run.
    backed: bool,
    state: Mutex<State>,
}

struct State {
    free_list: FreeList,
    in_use_bytes: usize,
    /// Memory from the driver: handle and bytes of each allocation, mapped contiguously from `base`.
    pieces: Vec<(sys::CUmemGenericAllocationHandle, usize)>,
    backed_bytes: usize,
    /// The capture in progress, if there is one.
    recording: Option<Recording>,
    /// Number of captures so far, and the ascending numbers of captures whose graph still exists.
    captures: u64,
    graphs: Vec<u64>,
    /// Freed memory that an existing graph uses, with the number of captures before it was allocated.
    withheld: Vec<(u64, FreeRange)>,
}

/// Resources that the capture in progress uses.
#[derive(Default)]
struct Recording {
    /// Ranges allocated or freed during the capture.
    ranges: Vec<FreeRange>,
    owners: Vec<Owner>,
}

/// An object outside of the arena that must live as long as a graph.
pub(crate) type Owner = Arc<dyn Any + Send + Sync>;

/// Reserves the memory that was in use during a capture, so that only the captured graph uses it.
pub(crate) struct Reservation {
    arena: Arc<CudaArena>,
    /// Number of the capture.
    number: u64,
    kept: Vec<FreeRange>,
    _owners: Vec<Owner>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut guard = self.arena.lock();
        let state = &mut *guard;
        state.graphs.retain(|number| *number != self.number);
        let newest = state.graphs.last().copied().unwrap_or(0);
        let released = state.withheld.extract_if(.., |(captures_before, _)| *captures_before >= newest);
        for FreeRange { start, len } in released.map(|(_, range)| range).chain(self.kept.drain(..)) {
            state.free_list.free(start, len);
        }
    }
}

impl CudaArena {
    /// Reserves address space as large as the device's memory, without backing it. On a dry run the size is
    /// unlimited.
    pub(crate) fn new(context: &Arc<CudaContext>, backed: bool) -> Result<Arc<CudaArena>> {
        let total = context.total_mem().map_err(cuda_error("cuDeviceTotalMem"))?;
        let (reserved, mut base) = (total.next_multiple_of(STEP) + STEP, 0);
        if backed {
            context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))?;
            // SAFETY: plain values; the address range is given back in `drop`.
            unsafe { sys::cuMemAddressReserve(&mut base, reserved, 0, 0, 0) }
                .result()
                .map_err(cuda_error("cuMemAddressReserve"))?;
        }
        let free_list = FreeList::new(if backed { reserved } else { usize::MAX / 2 });
        let state = State {
            free_list,
            in_use_bytes: 0,
            pieces: Vec::new(),
            backed_bytes: 0,
            recording: None,
            captures: 0,
            graphs: Vec::new(),
            withheld: Vec::new(),
        };
        Ok(Arc::new(CudaArena { context: context.clone(), base, reserved, backed, state: Mutex::new(state) }))
    }

    /// Allocates a buffer of at least `bytes` bytes with arbitrary contents.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize, format: Format) -> Result<CudaBuffer> {
        if cfg!(vgg_exact_buffers) && self.backed {
            // SAFETY: the memory is freed in `put`.
            let pointer = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(cuda_error("cuMemAlloc"))?;
            return Ok(CudaBuffer { pointer, bytes, format, captures_before: 0, arena: self.clone() });
        }
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut state = self.lock();
        let Some(at) = state.free_list.alloc(bytes) else { return Err(self.out_of_memory(bytes)) };
        if self.backed
            && at + bytes > state.backed_bytes
            && let Err(e) = self.back(&mut state, at + bytes)
        {
            state.free_list.free(at, bytes);
            return Err(e);
        }
        state.in_use_bytes += bytes;
        if let Some(recording) = &mut state.recording {
            recording.ranges.push(FreeRange { start: at, len: bytes });
        }
        let captures_before = state.captures;
        let pointer = self.base + at as sys::CUdeviceptr;
        Ok(CudaBuffer { pointer, bytes, format, captures_before, arena: self.clone() })
    }

    /// Starts to record the resources of a capture.
    pub(crate) fn begin_recording(&self) {
        self.lock().recording = Some(Recording::default());
    }

    /// During a capture, keeps `owner` for as long as the captured graph exists.
    pub(crate) fn keep_for_graph(&self, owner: impl FnOnce() -> Owner) {
        if let Some(recording) = &mut self.lock().recording {
            recording.owners.push(owner());
        }
    }

    /// Ends the recording and reserves the memory that the capture used and freed.
    pub(crate) fn end_recording(self: &Arc<Self>) -> Reservation {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Recording { ranges, owners } = state.recording.take().unwrap_or_default();
        let kept = ranges
            .into_iter()
            .flat_map(|FreeRange { start, len }| state.free_list.alloc_within(start, len))
            .collect();
        state.captures += 1;
        let number = state.captures;
        state.graphs.push(number);
        Reservation { arena: self.clone(), number, kept, _owners: owners }
    }

    /// Fills all free memory with the byte 0xff, which makes every value NaN in every precision.
    pub(crate) fn poison(&self, stream: sys::CUstream) -> Result<()> {
        let state = self.lock();
        self.context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))?;
        for range in state.free_list.iter() {
            let end = (range.start + range.len).min(state.backed_bytes);
            if range.start < end {
                let pointer = self.base + range.start as sys::CUdeviceptr;
                // SAFETY: these addresses are backed with memory, and no buffer uses it.
                unsafe { result::memset_d8_async(pointer, 0xff, end - range.start, stream) }
                    .map_err(cuda_error("cuMemsetD8"))?;
            }
        }
        Ok(())
    }

    /// Bytes allocated now, and the high-water mark in bytes.
    pub(crate) fn usage_bytes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_use_bytes, state.free_list.high_water())
    }

    /// Requests memory from the driver until the first `end` bytes are backed.
    fn back(&self, state: &mut State, end: usize) -> Result<()> {
        let bytes = (end - state.backed_bytes).next_multiple_of(STEP);
        self.context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))?;
        let location = sys::CUmemLocation {
            type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            id: self.context.ordinal() as i32,
        };
        // SAFETY: all zero is a valid value of this plain struct.
        let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
        properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.location = location;
        let access = sys::CUmemAccessDesc {
            location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        let mut handle = 0;
        let pointer = self.base + state.backed_bytes as sys::CUdeviceptr;
        // SAFETY: the range lies in the reserved space and nothing is mapped there yet.
        unsafe {
            match sys::cuMemCreate(&mut handle, bytes, &properties, 0).result() {
                Err(e) if e.0 == sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY => {
                    return Err(self.out_of_memory(bytes));
                }
                created => created.map_err(cuda_error("cuMemCreate"))?,
            }
            let mapped = sys::cuMemMap(pointer, bytes, 0, handle, 0).result();
            let mapped = mapped.and_then(|()| sys::cuMemSetAccess(pointer, bytes, &access, 1).result());
            if let Err(e) = mapped {
                let _ = sys::cuMemRelease(handle);
                return Err(cuda_error("cuMemMap")(e));
            }
        }
        state.pieces.push((handle, bytes));
        state.backed_bytes += bytes;
        Ok(())
    }

    fn out_of_memory(&self, wanted_bytes: usize) -> Error {
        let (free_bytes, total_bytes) = self.context.mem_get_info().unwrap_or_default();
        Error::OutOfMemory { wanted_bytes, free_bytes, total_bytes }
    }

    fn put(&self, buffer: &CudaBuffer) {
        if cfg!(vgg_exact_buffers) && self.backed {
            // Freeing fails only if the device is lost, which the next operation reports.
            // SAFETY: it was allocated in `take`.
            let _ = unsafe { result::free_sync(buffer.pointer) };
            return;
        }
        let mut state = self.lock();
        state.in_use_bytes -= buffer.bytes;
        let range = FreeRange { start: (buffer.pointer - self.base) as usize, len: buffer.bytes };
        if state.graphs.last().is_some_and(|newest| *newest > buffer.captures_before) {
            state.withheld.push((buffer.captures_before, range));
            return;
        }
        state.free_list.free(range.start, range.len);
        if let Some(recording) = &mut state.recording {
            recording.ranges.push(range);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CudaArena {
    fn drop(&mut self) {
        if !self.backed || self.context.bind_to_thread().is_err() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut pointer = self.base;
        // SAFETY: every buffer holds the arena, so none is left. On failure, memory is leaked until the
        // process exits.
        unsafe {
            let _ = sys::cuCtxSynchronize();
            for (handle, bytes) in state.pieces.drain(..) {
                let _ = sys::cuMemUnmap(pointer, bytes);
                let _ = sys::cuMemRelease(handle);
                pointer += bytes as sys::CUdeviceptr;
            }
            let _ = sys::cuMemAddressFree(self.base, self.reserved);
        }
    }
}
