//! The stream that all work on a GPU is on, with the memory that it uses.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::Format;
use super::buffer::{CudaArena, CudaBuffer, Owner};
use super::error::cuda_error;
use crate::{Error, Result};

/// A cheap handle to a stream. On one that plans, nothing runs and memory is counted only.
#[derive(Clone)]
pub(crate) struct Stream {
    pub(super) memory: Arc<CudaArena>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    dry_run: bool,
}

impl Stream {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Stream> {
        Ok(Stream {
            memory: CudaArena::new(context, true)?,
            stream: context.new_stream().map_err(cuda_error("cuStreamCreate"))?,
            context: context.clone(),
            dry_run: false,
        })
    }

    /// The same stream without data.
    pub(super) fn dry_run(&self) -> Result<Stream> {
        let memory = CudaArena::new(&self.context, false)?;
        Ok(Stream { memory, dry_run: true, ..self.clone() })
    }

    /// Whether memory of one is memory of the other.
    pub(crate) fn shares_memory_with(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }

    /// Whether nothing runs.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Memory that nobody has taken from the driver.
    pub(crate) fn free_bytes(&self) -> Result<usize> {
        self.bind()?;
        Ok(self.context.mem_get_info().map_err(cuda_error("cuMemGetInfo"))?.0)
    }

    /// Bytes in buffers now, and the most that were ever spanned.
    pub(crate) fn memory_usage_bytes(&self) -> (usize, usize) {
        self.memory.usage_bytes()
    }

    /// Fills all memory that no buffer has with NaN.
    pub(crate) fn poison_free_memory(&self) -> Result<()> {
        self.memory.poison(self.raw())
    }

    /// Memory that is not a tensor's.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<CudaBuffer> {
        self.memory.take(bytes, Format::PLAIN)
    }

    /// Copies values to the front of a buffer, after what is on the stream.
    pub(crate) fn upload<V: Copy>(&self, values: &[V], to: &CudaBuffer) -> Result<()> {
        assert!(size_of_val(values) <= to.bytes(), "a buffer is too small for what is uploaded");
        if self.dry_run || values.is_empty() {
            return Ok(());
        }
        self.refuse_capture("cuMemcpyHtoD")?;
        self.bind()?;
        // SAFETY: the buffer has room, as was checked; the driver has read pageable memory when the call returns.
        unsafe { result::memcpy_htod_async(to.pointer(), values, self.raw()) }
            .map_err(cuda_error("cuMemcpyHtoD"))
    }

    /// Copies values from the device and waits for them.
    ///
    /// # Safety
    /// There must be memory of that many values, and any bits must be a value.
    pub(crate) unsafe fn download<V: Copy>(&self, from: sys::CUdeviceptr, values: &mut [V]) -> Result<()> {
        if self.dry_run || values.is_empty() {
            return Ok(());
        }
        self.refuse_capture("cuMemcpyDtoH")?;
        self.bind()?;
        // SAFETY: by the caller's promise; the memory lives until the stream has come this far.
        unsafe {
            result::memcpy_dtoh_async(values, from, self.raw()).map_err(cuda_error("cuMemcpyDtoH"))?;
            result::stream::synchronize(self.raw()).map_err(cuda_error("cuStreamSynchronize"))
        }
    }

    /// Copies bytes on the device.
    ///
    /// # Safety
    /// Both must be memory of that many bytes.
    pub(crate) unsafe fn copy(
        &self,
        from: sys::CUdeviceptr,
        to: sys::CUdeviceptr,
        bytes: usize,
    ) -> Result<()> {
        if self.dry_run || bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: by the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.raw()) }.map_err(cuda_error("cuMemcpyDtoD"))
    }

    /// Sets bytes to zero.
    pub(crate) fn clear(&self, buffer: &CudaBuffer) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the buffer has that many bytes.
        unsafe { result::memset_d8_async(buffer.pointer(), 0, buffer.bytes(), self.raw()) }
            .map_err(cuda_error("cuMemsetD8"))
    }

    /// Waits for all that was started.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as the GPU.
        unsafe { result::stream::synchronize(self.raw()) }.map_err(cuda_error("cuStreamSynchronize"))
    }

    /// Keeps `owner` as long as the graph that is being captured exists; nothing if none is.
    pub(crate) fn keep_for_graph(&self, owner: impl FnOnce() -> Owner) {
        self.memory.keep_for_graph(owner);
    }

    /// Whether the stream records work instead of doing it.
    pub(crate) fn is_capturing(&self) -> Result<bool> {
        let status = self.stream.capture_status().map_err(cuda_error("cuStreamIsCapturing"))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// A copy from or to host memory cannot be captured: the graph would use that memory after its owner.
    pub(super) fn refuse_capture(&self, call: &'static str) -> Result<()> {
        if !self.is_capturing()? {
            return Ok(());
        }
        let reason = "work that is captured cannot copy between host and device".into();
        Err(Error::Cuda { call, reason })
    }

    /// The context that it shares with NCCL.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream that all work is on.
    pub(crate) fn main_stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(crate) fn raw(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    pub(crate) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))
    }
}
