//! Copies between host and device that wait for nobody: through pinned memory, uploads on a stream of their own.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use super::buffer::CudaBuffer;
use super::error::cuda_error;
use super::stream::Stream;
use crate::Result;

/// Host memory that a device can copy from and to by itself.
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
        // SAFETY: the memory is ours; it is to be initialised before it is lent out.
        unsafe { pinned.pointer.write_bytes(0, bytes) };
        Ok(pinned)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: initialised in `new`.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive; users wait for copies that are under way.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated in `new`; what fails here is lost with the process.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}

/// Bytes on their way to the same place on a device, again and again. While one lot is worked on, the next one goes up.
pub(crate) struct HostToDevice {
    stream: Stream,
    copies: Arc<CudaStream>,
    host: Pinned,
    /// Where a lot waits until the work on the one before is done.
    waiting: CudaBuffer,
    /// Where kernels find it.
    place: CudaBuffer,
    uploaded: CudaEvent,
    taken: CudaEvent,
}

impl HostToDevice {
    pub(crate) fn new(stream: &Stream, bytes: usize) -> Result<HostToDevice> {
        let context = stream.context();
        let event = || context.new_event(None).map_err(cuda_error("cuEventCreate"));
        let (uploaded, taken) = (event()?, event()?);
        let (waiting, place) = (stream.take_bytes(bytes)?, stream.take_bytes(bytes)?);
        // The memory may have been another's until now, whose work is still under way on the device's stream.
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

    /// Where the bytes are for what comes next on the device's stream.
    pub(crate) fn pointer(&self) -> sys::CUdeviceptr {
        self.place.pointer()
    }

    /// Lets `write` fill the host's side and sends it up. Work that is under way goes on meanwhile.
    pub(crate) fn fill(&mut self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        if self.stream.is_dry_run() {
            return Ok(());
        }
        self.stream.refuse_capture("cuMemcpyHtoD")?;
        // The last lot has left the host, and its waiting place.
        self.uploaded.synchronize().map_err(cuda_error("cuEventSynchronize"))?;
        write(self.host.bytes_mut());
        self.copies.wait(&self.taken).map_err(cuda_error("cuStreamWaitEvent"))?;
        let waiting = self.waiting.pointer();
        // SAFETY: both sides have that many bytes, and the host's is not touched before `uploaded`.
        unsafe { result::memcpy_htod_async(waiting, self.host.bytes(), self.copies.cu_stream()) }
            .map_err(cuda_error("cuMemcpyHtoD"))?;
        self.uploaded.record(&self.copies).map_err(cuda_error("cuEventRecord"))?;
        let stream = self.stream.main_stream();
        stream.wait(&self.uploaded).map_err(cuda_error("cuStreamWaitEvent"))?;
        // SAFETY: both places were taken for that many bytes.
        unsafe { self.stream.copy(waiting, self.place.pointer(), self.host.bytes) }?;
        self.taken.record(stream).map_err(cuda_error("cuEventRecord"))
    }
}

impl Drop for HostToDevice {
    fn drop(&mut self) {
        // The buffers go back to the arena, which only knows the order of the device's own stream.
        let _ = self.copies.synchronize();
    }
}

impl Drop for DeviceToHost {
    fn drop(&mut self) {
        // The device may still be writing to the host's memory.
        let _ = self.arrived.synchronize();
    }
}

/// Bytes on their way from a device, of which the host is told later.
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

    /// How many bytes it has room for.
    pub(crate) fn len(&self) -> usize {
        self.host.bytes
    }

    /// Starts to fetch pieces `(from, bytes)`, which lie behind each other on the host.
    ///
    /// # Safety
    /// Each must be memory of this device of that many bytes, at most as many as there is room for together.
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
            // SAFETY: by the caller's promise; the host's side is not touched before `arrived`.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.raw()) }
                .map_err(cuda_error("cuMemcpyDtoH"))?;
            rest = behind;
        }
        self.arrived.record(self.stream.main_stream()).map_err(cuda_error("cuEventRecord"))
    }

    /// Waits, and shows what came.
    pub(crate) fn wait(&self) -> Result<&[u8]> {
        if !self.stream.is_dry_run() {
            self.arrived.synchronize().map_err(cuda_error("cuEventSynchronize"))?;
        }
        Ok(self.host.bytes())
    }
}
