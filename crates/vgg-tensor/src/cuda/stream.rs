//! The CUDA stream on which all work of a GPU runs, with the arena that it uses.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::Format;
use super::buffer::{CudaArena, CudaBuffer, Owner};
use super::error::cuda_error;
use crate::{Error, Result};

/// A cheap handle to a stream. On a dry run nothing runs and memory is only counted.
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

    /// A handle to the same stream for a dry run, with a separate arena.
    pub(super) fn dry_run(&self) -> Result<Stream> {
        let memory = CudaArena::new(&self.context, false)?;
        Ok(Stream { memory, dry_run: true, ..self.clone() })
    }

    /// Whether both streams use the same arena.
    pub(crate) fn shares_memory_with(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }

    /// Whether this is a dry run.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Free device memory in bytes, as reported by the driver.
    pub(crate) fn free_bytes(&self) -> Result<usize> {
        self.bind()?;
        Ok(self.context.mem_get_info().map_err(cuda_error("cuMemGetInfo"))?.0)
    }

    /// Bytes allocated now, and the high-water mark in bytes.
    pub(crate) fn memory_usage_bytes(&self) -> (usize, usize) {
        self.memory.usage_bytes()
    }

    /// Fills all free memory with NaN.
    pub(crate) fn poison_free_memory(&self) -> Result<()> {
        self.memory.poison(self.raw())
    }

    /// Allocates memory that does not belong to a tensor.
    pub(crate) fn alloc_bytes(&self, bytes: usize) -> Result<CudaBuffer> {
        self.memory.alloc(bytes, Format::PLAIN)
    }

    /// Copies values to the start of a buffer, in stream order.
    pub(crate) fn upload<V: Copy>(&self, values: &[V], to: &CudaBuffer) -> Result<()> {
        assert!(size_of_val(values) <= to.bytes(), "the buffer is too small for the values");
        if self.dry_run || values.is_empty() {
            return Ok(());
        }
        self.refuse_capture("cuMemcpyHtoD")?;
        self.bind()?;
        // SAFETY: the assertion checks the buffer's size; the driver has read pageable memory when the call
        // returns.
        unsafe { result::memcpy_htod_async(to.pointer(), values, self.raw()) }
            .map_err(cuda_error("cuMemcpyHtoD"))
    }

    /// Copies values to the host and waits for the copy.
    ///
    /// # Safety
    /// `from` must be device memory of `values.len()` values, and any bits must be a valid `V`.
    pub(crate) unsafe fn download<V: Copy>(&self, from: sys::CUdeviceptr, values: &mut [V]) -> Result<()> {
        if self.dry_run || values.is_empty() {
            return Ok(());
        }
        self.refuse_capture("cuMemcpyDtoH")?;
        self.bind()?;
        // SAFETY: by the caller's promise; `values` is borrowed until the stream is synchronised.
        unsafe {
            result::memcpy_dtoh_async(values, from, self.raw()).map_err(cuda_error("cuMemcpyDtoH"))?;
            result::stream::synchronize(self.raw()).map_err(cuda_error("cuStreamSynchronize"))
        }
    }

    /// Copies bytes within device memory.
    ///
    /// # Safety
    /// Both addresses must be device memory of `bytes` bytes.
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

    /// Sets all bytes of a buffer to zero.
    pub(crate) fn clear(&self, buffer: &CudaBuffer) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the buffer has that many bytes.
        unsafe { result::memset_d8_async(buffer.pointer(), 0, buffer.bytes(), self.raw()) }
            .map_err(cuda_error("cuMemsetD8"))
    }

    /// Waits for all work on the stream.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as the GPU.
        unsafe { result::stream::synchronize(self.raw()) }.map_err(cuda_error("cuStreamSynchronize"))
    }

    /// During a capture, keeps `owner` for as long as the captured graph exists.
    pub(crate) fn keep_for_graph(&self, owner: impl FnOnce() -> Owner) {
        self.memory.keep_for_graph(owner);
    }

    /// Whether the stream captures work instead of running it.
    pub(crate) fn is_capturing(&self) -> Result<bool> {
        let status = self.stream.capture_status().map_err(cuda_error("cuStreamIsCapturing"))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Returns an error during a capture: a captured copy would use host memory after its owner has freed it.
    pub(super) fn refuse_capture(&self, call: &'static str) -> Result<()> {
        if !self.is_capturing()? {
            return Ok(());
        }
        let reason = "a captured graph cannot copy between host and device".into();
        Err(Error::Cuda { call, reason })
    }

    /// The context, which NCCL shares.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream on which all work runs.
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
