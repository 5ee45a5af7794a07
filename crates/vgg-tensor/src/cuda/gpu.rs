//! An open GPU: its stream, its memory, and how kernels and libraries are called.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::blas::Blas;
use super::buffer::{CudaArena, CudaBuffer};
use super::cudnn::Cudnn;
use super::kernels::Kernels;
use super::{CHANNELS, Element, Format, Product, THREADS, libraries, rows};
use crate::{DeviceConfig, Engines, Error, Precision, Result, Shape};

/// An open GPU, or one that plans: then nothing runs, and memory is counted only.
#[derive(Clone)]
pub(crate) struct Cuda {
    gpu: Arc<Gpu>,
    pub(super) memory: Arc<CudaArena>,
    planning: bool,
}

/// In the order in which they go: what uses the stream before the stream, and the context last.
struct Gpu {
    cudnn: Cudnn,
    blas: Blas,
    kernels: Kernels,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    precision: Precision,
    name: String,
    capability: (i32, i32),
}

/// The context of a GPU, which stays for as long as the program runs: libraries keep state for it.
fn context(ordinal: usize) -> std::result::Result<Arc<CudaContext>, DriverError> {
    static ALL: Mutex<Vec<(usize, Arc<CudaContext>)>> = Mutex::new(Vec::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, context)) = all.iter().find(|(of, _)| *of == ordinal) {
        return Ok(context.clone());
    }
    let context = CudaContext::new(ordinal)?;
    all.push((ordinal, context.clone()));
    Ok(context)
}

/// Names the call that failed.
pub(crate) fn cuda_error(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |e| {
        let text = e.error_string().map(|text| text.to_string_lossy().into_owned());
        Error::Cuda { call, reason: text.unwrap_or_else(|_| format!("{:?}", e.0)) }
    }
}

fn no_device(e: DriverError) -> Error {
    let reason = cuda_error("cuInit")(e).to_string();
    Error::NoCuda { reason: format!("{reason}; nvidia-smi shows which GPUs there are") }
}

impl Cuda {
    /// How many GPUs there are.
    pub(crate) fn count() -> Result<usize> {
        libraries::check().map_err(|reason| Error::NoCuda { reason })?;
        result::init().map_err(no_device)?;
        Ok(CudaContext::device_count().map_err(no_device)? as usize)
    }

    /// Opens GPU `ordinal`.
    pub(crate) fn open(ordinal: usize, config: &DeviceConfig) -> Result<Cuda> {
        let (precision, cache) = (config.precision, config.cache.as_deref());
        let count = Cuda::count()?;
        if ordinal >= count {
            return Err(Error::NoCuda {
                reason: format!("there is no GPU {ordinal}: the driver sees {count}"),
            });
        }
        let context = context(ordinal).map_err(no_device)?;
        // SAFETY: cudarc's own buffers, which events would guard, are not used; `transfer.rs` has events of its own.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(cuda_error("cuStreamCreate"))?;
        let capability = context.compute_capability().map_err(cuda_error("cuDeviceGetAttribute"))?;
        if precision == Precision::Bf16 && capability.0 < 8 {
            let reason = format!(
                "compute capability {}.{} has no bf16; use --precision f32",
                capability.0, capability.1
            );
            return Err(Error::NoCuda { reason });
        }
        let memory = CudaArena::new(&context, true)?;
        let name = context.name().map_err(cuda_error("cuDeviceGetName"))?;
        let gpu = Gpu {
            kernels: Kernels::compile(&context, capability, precision, cache)?,
            blas: Blas::new(precision)?,
            cudnn: Cudnn::new(&stream, config, &name)?,
            name,
            precision,
            capability,
            context,
            stream,
        };
        Ok(Cuda { gpu: Arc::new(gpu), memory, planning: false })
    }

    /// The same GPU without data.
    pub(crate) fn planning(&self) -> Result<Cuda> {
        let memory = CudaArena::new(&self.gpu.context, false)?;
        Ok(Cuda { gpu: self.gpu.clone(), memory, planning: true })
    }

    /// Whether nothing runs.
    pub(crate) fn is_planning(&self) -> bool {
        self.planning
    }

    /// What decides bits.
    pub(crate) fn numerics(&self) -> String {
        let (major, minor) = self.gpu.capability;
        let engines = match self.gpu.cudnn.engines() {
            Engines::Deterministic => "",
            Engines::Any => ", any engines",
        };
        format!("cuda sm_{major}{minor}, {}{engines}", self.gpu.precision.name())
    }

    /// Memory that nobody has taken from the driver.
    pub(crate) fn free_bytes(&self) -> Result<usize> {
        self.bind()?;
        Ok(self.gpu.context.mem_get_info().map_err(cuda_error("cuMemGetInfo"))?.0)
    }

    /// Bytes in buffers now, and the most that were ever spanned.
    pub(crate) fn memory_usage_bytes(&self) -> (usize, usize) {
        self.memory.usage_bytes()
    }

    /// Fills all memory that no buffer has with NaN.
    pub(crate) fn poison_free_memory(&self) -> Result<()> {
        self.memory.poison(self.stream())
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        format!("cuda:{}, {}, {}", self.gpu.context.ordinal(), self.gpu.name, self.gpu.precision.name())
    }

    pub(crate) fn cudnn(&self) -> &Cudnn {
        &self.gpu.cudnn
    }

    /// The type of activations.
    pub(crate) fn element(&self) -> Element {
        match self.gpu.precision {
            Precision::Bf16 => Element::Bf16,
            Precision::Tf32 | Precision::F32 => Element::F32,
        }
    }

    /// The format of activations with `c` channels.
    pub(crate) fn activation(&self, c: usize) -> Format {
        Format { element: self.element(), padding: c.next_multiple_of(CHANNELS) - c }
    }

    /// Memory of a tensor in a format.
    pub(crate) fn take(&self, shape: Shape, format: Format) -> Result<CudaBuffer> {
        self.memory.take(rows(shape) * format.pitch(shape.last()) * format.element.bytes(), format)
    }

    /// Memory of a tensor of float without padding.
    pub(crate) fn take_plain(&self, shape: Shape) -> Result<CudaBuffer> {
        self.take(shape, Format::PLAIN)
    }

    /// Memory that is not a tensor's.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<CudaBuffer> {
        self.memory.take(bytes, Format::PLAIN)
    }

    /// Whether what runs now is a step that will be captured, so that time spent on choosing is time gained.
    pub(crate) fn set_choosing(&self, choosing: bool) {
        self.gpu.cudnn.set_choosing(choosing);
    }

    /// Runs a kernel with at least `threads` threads. Arguments are as [`Cuda::launch_blocks`].
    ///
    /// # Safety
    /// As [`Cuda::launch_blocks`].
    pub(crate) unsafe fn launch(
        &self,
        kernel: &'static str,
        threads: usize,
        arguments: &[u64],
    ) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.launch_blocks(kernel, (threads.div_ceil(THREADS), 1), arguments) }
    }

    /// Runs a kernel on a grid of blocks. Arguments are the bits of pointers and of integers of 32 or 64 bits; those of a
    /// float are [`bits`].
    ///
    /// # Safety
    /// The arguments must match the kernel's signature. Each pointer must be to memory of this device of the size that the kernel's comment
    /// gives, or 0 where the kernel allows it. A buffer may be dropped when this returns: the stream runs later uses of its memory after the
    /// kernel.
    pub(crate) unsafe fn launch_blocks(
        &self,
        kernel: &'static str,
        (x, y): (usize, usize),
        arguments: &[u64],
    ) -> Result<()> {
        if self.planning || x == 0 || y == 0 {
            return Ok(());
        }
        self.bind()?;
        let function = self.gpu.kernels.get(kernel);
        let mut pointers = [std::ptr::null_mut(); 24];
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = std::ptr::from_ref(argument).cast_mut().cast();
        }
        let grid = (x as u32, y as u32, 1);
        // SAFETY: by the caller's promise; little-endian integers of 32 bits are the front of those of 64.
        unsafe {
            result::launch_kernel(
                function,
                grid,
                (THREADS as u32, 1, 1),
                0,
                self.gpu.stream.cu_stream(),
                &mut pointers[..arguments.len()],
            )
        }
        .map_err(cuda_error(kernel))
    }

    /// A matrix product.
    ///
    /// # Safety
    /// Its matrices and its bias must be memory of this device of the sizes and elements that it says.
    pub(crate) unsafe fn product(&self, product: &Product) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.gpu.blas.run(self, product) }
    }

    /// Copies values to the front of a buffer, after what is on the stream.
    pub(crate) fn upload<V: Copy>(&self, values: &[V], to: &CudaBuffer) -> Result<()> {
        assert!(size_of_val(values) <= to.bytes(), "a buffer is too small for what is uploaded");
        if self.planning || values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the buffer has room, as was checked; the driver has read pageable memory when the call returns.
        unsafe { result::memcpy_htod_async(to.pointer(), values, self.stream()) }
            .map_err(cuda_error("cuMemcpyHtoD"))
    }

    /// Copies values from the device and waits for them.
    ///
    /// # Safety
    /// There must be memory of that many values, and any bits must be a value.
    pub(crate) unsafe fn download<V: Copy>(&self, from: sys::CUdeviceptr, values: &mut [V]) -> Result<()> {
        if self.planning || values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: by the caller's promise; the memory lives until the stream has come this far.
        unsafe {
            result::memcpy_dtoh_async(values, from, self.stream()).map_err(cuda_error("cuMemcpyDtoH"))?;
            result::stream::synchronize(self.stream()).map_err(cuda_error("cuStreamSynchronize"))
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
        if self.planning || bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: by the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }
            .map_err(cuda_error("cuMemcpyDtoD"))
    }

    /// Sets bytes to zero.
    pub(crate) fn clear(&self, buffer: &CudaBuffer) -> Result<()> {
        if self.planning {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the buffer has that many bytes.
        unsafe { result::memset_d8_async(buffer.pointer(), 0, buffer.bytes(), self.stream()) }
            .map_err(cuda_error("cuMemsetD8"))
    }

    /// Waits for all that was started.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as the GPU.
        unsafe { result::stream::synchronize(self.stream()) }.map_err(cuda_error("cuStreamSynchronize"))
    }

    /// The context that it shares with NCCL.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.gpu.context
    }

    /// The stream that all work is on.
    pub(crate) fn main_stream(&self) -> &Arc<CudaStream> {
        &self.gpu.stream
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.gpu.stream.cu_stream()
    }

    pub(crate) fn bind(&self) -> Result<()> {
        self.gpu.context.bind_to_thread().map_err(cuda_error("cuCtxSetCurrent"))
    }
}
