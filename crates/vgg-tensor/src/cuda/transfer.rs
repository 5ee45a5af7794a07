//! Asynchronous copies between host and device through pinned memory; uploads run on their own stream.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use super::buffer::CudaBuffer;
use super::error::cuda_error;
use super::stream::Stream;
use crate::Result;

/// Pinned (page-locked) host memory, which a device can access directly.
struct Pinned {
    context: Arc<CudaContext>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: it owns its memory.
unsafe impl Send for Pinned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Pinned {}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Pinned> {
        context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))?;
        // SAFETY: freed in `drop`.
        let pointer =
            unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(cuda_error("cuMemHostAlloc"))?;
        let pinned = Pinned { context: context.clone(), pointer: pointer.cast(), bytes };
        // SAFETY: the allocation has `bytes` bytes and no other user; this initialises them.
        unsafe { pinned.pointer.write_bytes(0, bytes) };
        Ok(pinned)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: initialised in `new`.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive; callers wait for copies in progress.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated in `new`; on failure it is leaked until the process exits.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}

/// Repeated uploads to the same device buffer. The next upload overlaps the work on the current contents.
pub(crate) struct HostToDevice {
    stream: Stream,
    copies: Arc<CudaStream>,
    host: Pinned,
    /// Receives an upload while work on the previous one runs.
    waiting: CudaBuffer,
    /// The buffer that kernels read.
    place: CudaBuffer,
    uploaded: CudaEvent,
    taken: CudaEvent,
}

impl HostToDevice {
    pub(crate) fn new(stream: &Stream, bytes: usize) -> Result<HostToDevice> {
        let context = stream.context();
        let event = || context.new_event(None).map_err(cuda_error("cuEventCreate"));
        let (uploaded, taken) = (event()?, event()?);
        let (waiting, place) = (stream.alloc_bytes(bytes)?, stream.alloc_bytes(bytes)?);
        // Work of the memory's previous owner may still run on the device's stream.
        taken.record(stream.main_stream()).map_err(cuda_error("cuEventRecord"))?;
        Ok(HostToDevice {
            copies: context.new_stream().map_err(cuda_error("cuStreamCreate"))?,
            host: Pinned::new(context, bytes)?,
            waiting,
            place,
            uploaded,
            taken,
            stream: stream.clone(),
        })
    }

    /// Address of the contents, for later work on the device's stream.
    pub(crate) fn pointer(&self) -> sys::CUdeviceptr {
        self.place.pointer()
    }

    /// Fills the host buffer with `write` and starts the upload. Work in progress on the device continues.
    pub(crate) fn fill(&mut self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        if self.stream.is_dry_run() {
            return Ok(());
        }
        self.stream.refuse_capture("cuMemcpyHtoD")?;
        // Wait until the previous upload has left the host buffer.
        self.uploaded.synchronize().map_err(cuda_error("cuEventSynchronize"))?;
        write(self.host.bytes_mut());
        self.copies.wait(&self.taken).map_err(cuda_error("cuStreamWaitEvent"))?;
        let waiting = self.waiting.pointer();
        // SAFETY: both buffers have that many bytes, and the host buffer is not touched before `uploaded`.
        unsafe { result::memcpy_htod_async(waiting, self.host.bytes(), self.copies.cu_stream()) }
            .map_err(cuda_error("cuMemcpyHtoD"))?;
        self.uploaded.record(&self.copies).map_err(cuda_error("cuEventRecord"))?;
        let stream = self.stream.main_stream();
        stream.wait(&self.uploaded).map_err(cuda_error("cuStreamWaitEvent"))?;
        // SAFETY: both buffers were allocated with that many bytes.
        unsafe { self.stream.copy(waiting, self.place.pointer(), self.host.bytes) }?;
        self.taken.record(stream).map_err(cuda_error("cuEventRecord"))
    }
}

impl Drop for HostToDevice {
    fn drop(&mut self) {
        // The arena orders reuse of the buffers only by the device's own stream.
        let _ = self.copies.synchronize();
    }
}

impl Drop for DeviceToHost {
    fn drop(&mut self) {
        // The device may still be writing to the host buffer.
        let _ = self.arrived.synchronize();
    }
}

/// An asynchronous download to a pinned host buffer.
pub(crate) struct DeviceToHost {
    stream: Stream,
    host: Pinned,
    arrived: CudaEvent,
}

impl DeviceToHost {
    pub(crate) fn new(stream: &Stream, bytes: usize) -> Result<DeviceToHost> {
        let context = stream.context();
        let arrived = context.new_event(None).map_err(cuda_error("cuEventCreate"))?;
        Ok(DeviceToHost { stream: stream.clone(), host: Pinned::new(context, bytes)?, arrived })
    }

    /// Capacity in bytes.
    pub(crate) fn len(&self) -> usize {
        self.host.bytes
    }

    /// Starts to download pieces `(from, bytes)`, one after another in the host buffer.
    ///
    /// # Safety
    /// Each piece must be memory of this device of that many bytes; together they must not exceed the
    /// capacity.
    pub(crate) unsafe fn start(
        &mut self,
        pieces: impl Iterator<Item = (sys::CUdeviceptr, usize)>,
    ) -> Result<()> {
        if self.stream.is_dry_run() {
            return Ok(());
        }
        self.stream.refuse_capture("cuMemcpyDtoH")?;
        self.stream.bind()?;
        let mut rest = self.host.bytes_mut();
        for (from, bytes) in pieces {
            let (to, behind) = rest.split_at_mut(bytes);
            // SAFETY: by the caller's promise; the host buffer is not touched before `arrived`.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.raw()) }
                .map_err(cuda_error("cuMemcpyDtoH"))?;
            rest = behind;
        }
        self.arrived.record(self.stream.main_stream()).map_err(cuda_error("cuEventRecord"))
    }

    /// Waits for the download and returns the host buffer.
    pub(crate) fn wait(&self) -> Result<&[u8]> {
        if !self.stream.is_dry_run() {
            self.arrived.synchronize().map_err(cuda_error("cuEventSynchronize"))?;
        }
        Ok(self.host.bytes())
    }
}
