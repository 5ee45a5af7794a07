//! An open GPU: its stream, kernels and libraries.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::blas::Blas;
use super::buffer::CudaBuffer;
use super::cudnn::{Autotuning, Cudnn};
use super::error::cuda_error;
use super::kernels::Kernels;
use super::stream::Stream;
use super::{
    CHANNEL_ALIGNMENT, ConvolutionKey, ConvolutionOperands, Element, Format, Product, THREADS, libraries,
    rows,
};
use crate::{DeviceConfig, Engines, Error, Precision, Result, Shape};

/// A cheap handle to an open GPU. It dereferences to the stream on which its work runs.
#[derive(Clone)]
pub(crate) struct Cuda {
    gpu: Arc<Gpu>,
    stream: Stream,
}

/// Fields are dropped in this order: the libraries before the stream that they use.
struct Gpu {
    cudnn: Cudnn,
    blas: Blas,
    kernels: Kernels,
    _stream: Arc<CudaStream>,
    precision: Precision,
    name: String,
    capability: (i32, i32),
}

impl Deref for Cuda {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

/// The context of a GPU. It lives until the process exits, because libraries keep state for it.
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

/// The precision of a GPU of this compute capability; bf16 by default, if the GPU supports it.
fn precision(wanted: Option<Precision>, (major, minor): (i32, i32)) -> Result<Precision> {
    let has_bf16 = major >= 8;
    match wanted {
        None => Ok(if has_bf16 { Precision::Bf16 } else { Precision::F32 }),
        Some(Precision::Bf16) if !has_bf16 => {
            let reason =
                format!("it needs compute capability 8.0 or higher, but this GPU has {major}.{minor}");
            Err(Error::Precision { precision: Precision::Bf16.name(), reason })
        }
        Some(precision) => Ok(precision),
    }
}

fn no_device(e: DriverError) -> Error {
    let reason = cuda_error("cuInit")(e).to_string();
    Error::NoCuda { reason: format!("{reason}; run nvidia-smi to list the GPUs") }
}

impl Cuda {
    /// Number of GPUs.
    pub(crate) fn count() -> Result<usize> {
        libraries::check().map_err(|reason| Error::NoCuda { reason })?;
        result::init().map_err(no_device)?;
        Ok(CudaContext::device_count().map_err(no_device)? as usize)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.gpu.precision
    }

    /// Opens GPU `ordinal`.
    pub(crate) fn open(ordinal: usize, config: &DeviceConfig) -> Result<Cuda> {
        let cache = config.cache.as_deref();
        let count = Cuda::count()?;
        if ordinal >= count {
            return Err(Error::NoCuda {
                reason: format!("there is no GPU {ordinal}: the driver reports {count}, numbered from 0"),
            });
        }
        let context = context(ordinal).map_err(no_device)?;
        // SAFETY: the events would guard cudarc's own buffers, which are not used; `transfer.rs` has its own
        // events.
        unsafe { context.disable_event_tracking() };
        let stream = Stream::new(&context)?;
        let capability = context.compute_capability().map_err(cuda_error("cuDeviceGetAttribute"))?;
        let precision = precision(config.precision, capability)?;
        let name = context.name().map_err(cuda_error("cuDeviceGetName"))?;
        let gpu = Gpu {
            kernels: Kernels::compile(
                &context,
                &format!("sm_{}{}", capability.0, capability.1),
                precision,
                cache,
            )?,
            blas: Blas::new(precision)?,
            cudnn: Cudnn::new(stream.main_stream(), config, precision, &name)?,
            _stream: stream.main_stream().clone(),
            name,
            precision,
            capability,
        };
        Ok(Cuda { gpu: Arc::new(gpu), stream })
    }

    /// A handle to the same GPU for a dry run.
    pub(crate) fn dry_run(&self) -> Result<Cuda> {
        Ok(Cuda { gpu: self.gpu.clone(), stream: self.stream.dry_run()? })
    }

    /// The device properties that determine results bitwise.
    pub(crate) fn numerics(&self) -> String {
        let (major, minor) = self.gpu.capability;
        let engines = match self.gpu.cudnn.engines() {
            Engines::Deterministic => "",
            Engines::Any => ", any engines",
        };
        format!("cuda sm_{major}{minor}, {}{engines}", self.gpu.precision.name())
    }

    /// A description for logs.
    pub(crate) fn describe(&self) -> String {
        format!("cuda:{}, {}, {}", self.context().ordinal(), self.gpu.name, self.gpu.precision.name())
    }

    /// Element type of activations.
    pub(crate) fn element(&self) -> Element {
        Element::of(self.gpu.precision)
    }

    /// The format of activations with `c` channels.
    pub(crate) fn activation(&self, c: usize) -> Format {
        Format { element: self.element(), padding: c.next_multiple_of(CHANNEL_ALIGNMENT) - c }
    }

    /// Allocates the memory of a tensor in a format.
    pub(crate) fn alloc(&self, shape: Shape, format: Format) -> Result<CudaBuffer> {
        self.memory.alloc(rows(shape) * format.pitch(shape.last()) * format.element.bytes(), format)
    }

    /// Allocates the memory of an `f32` tensor without padding.
    pub(crate) fn take_plain(&self, shape: Shape) -> Result<CudaBuffer> {
        self.alloc(shape, Format::PLAIN)
    }

    /// Launches a kernel with at least `threads` threads. Arguments are as in [`Cuda::launch_blocks`].
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
        unsafe { self.launch_blocks(kernel, [threads.div_ceil(THREADS), 1], arguments) }
    }

    /// Launches a kernel on a grid of blocks. Arguments are the bits of pointers and of 32-bit or 64-bit
    /// integers; [`super::bits`] converts a float.
    ///
    /// # Safety
    /// The arguments must match the kernel's signature. Each pointer must be to memory of this device of the
    /// size that the kernel's comment gives, or 0 where the kernel allows it. A buffer may be dropped when
    /// this returns: the stream runs later uses of its memory after the kernel.
    pub(crate) unsafe fn launch_blocks(
        &self,
        kernel: &'static str,
        blocks: [usize; 2],
        arguments: &[u64],
    ) -> Result<()> {
        if self.is_dry_run() || blocks.contains(&0) {
            return Ok(());
        }
        self.bind()?;
        let function = self.gpu.kernels.get(kernel);
        let mut pointers = [std::ptr::null_mut(); 24];
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = std::ptr::from_ref(argument).cast_mut().cast();
        }
        let grid = (blocks[0] as u32, blocks[1] as u32, 1);
        // SAFETY: by the caller's promise; on a little-endian host, a 32-bit integer is the first half of a
        // 64-bit one.
        unsafe {
            result::launch_kernel(
                function,
                grid,
                (THREADS as u32, 1, 1),
                0,
                self.raw(),
                &mut pointers[..arguments.len()],
            )
        }
        .map_err(cuda_error(kernel))
    }

    /// Computes a matrix product.
    ///
    /// # Safety
    /// Its matrices and its bias must be memory of this device with the sizes and element types in `product`.
    pub(crate) unsafe fn product(&self, product: &Product) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.gpu.blas.run(self, product) }
    }

    /// Computes a convolution.
    ///
    /// # Safety
    /// The operands must be memory of this device with the sizes in `key` and elements of type
    /// [`Cuda::element`].
    pub(crate) unsafe fn convolution(
        &self,
        key: ConvolutionKey,
        operands: ConvolutionOperands,
    ) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.gpu.cudnn.run(self, key, operands) }
    }

    /// While the guard exists, convolutions are autotuned on their first use, because a graph will repeat
    /// them.
    pub(crate) fn autotuning(&self) -> Autotuning<'_> {
        self.gpu.cudnn.autotuning()
    }

    /// The cuDNN engines that autotuning chose: convolution, engine index and microseconds.
    pub(crate) fn describe_choices(&self) -> Vec<(String, usize, f64)> {
        self.gpu.cudnn.describe_choices()
    }

    /// The device properties in cuDNN's JSON format.
    pub(crate) fn device_properties(&self) -> Result<String> {
        self.gpu.cudnn.device_properties()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_the_default_from_compute_capability_8() {
        for (wanted, major, expected) in [
            (None, 9, Precision::Bf16),
            (None, 7, Precision::F32),
            (Some(Precision::Tf32), 9, Precision::Tf32),
            (Some(Precision::F32), 7, Precision::F32),
        ] {
            assert_eq!(precision(wanted, (major, 5)).ok(), Some(expected));
        }
        let refused = precision(Some(Precision::Bf16), (7, 5)).unwrap_err().to_string();
        assert!(refused.contains("bf16 is not available: it needs compute capability 8.0"), "{refused}");
    }
}
