//! A device: where tensors live and operations run.

use std::sync::Arc;

use crate::alloc::Arena;
use crate::cpu::{Cpu, Isa, SMALL_MAP, ThreadPool, TileIsa};
use crate::cuda::Cuda;
use crate::{
    ConvAlgorithm, DeviceConfig, DeviceKind, Error, Memory, PeakThroughput, Precision, Result, Shape,
};

/// Size of the processor's last-level cache that [`Device::cache_batch`] assumes, in bytes.
const LAST_LEVEL_CACHE: usize = 16 << 20;

/// A cheap handle to an open device. A CPU device owns its thread pool and its memory, a GPU device its
/// stream and its memory.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    backend: Backend,
    /// Why [`DeviceKind::Auto`] fell back to the CPU.
    no_cuda: Option<String>,
}

enum Backend {
    Cpu(CpuBackend),
    Cuda(Cuda),
}

struct CpuBackend {
    isa: Isa,
    conv: ConvAlgorithm,
    /// The unit that multiplies bf16 tiles, if the device computes in bf16.
    bf16: Option<TileIsa>,
    dry_run: bool,
    threads: Arc<ThreadPool>,
    memory: Arc<Arena>,
}

impl Device {
    /// Number of GPUs that [`Device::open`] finds; 0 if CUDA is unavailable.
    pub fn gpus() -> usize {
        Cuda::count().unwrap_or(0)
    }

    /// Opens a device. [`DeviceKind::Auto`] opens a GPU if CUDA is available, else the CPU.
    ///
    /// # Errors
    /// [`Error::NoCuda`] if CUDA is requested by name and is unavailable; [`Error::Cuda`] if a GPU fails;
    /// [`Error::Threads`] if the threads cannot be started; [`Error::InstructionSet`] if the processor does
    /// not support the instruction set; [`Error::Precision`] if the device does not support the precision.
    pub fn open(config: &DeviceConfig) -> Result<Device> {
        let no_cuda = match config.kind {
            DeviceKind::Cuda(ordinal) => return Ok(Device::of_cuda(Cuda::open(ordinal, config)?)),
            DeviceKind::Auto => match Cuda::open(config.auto_gpu, config) {
                Ok(cuda) => return Ok(Device::of_cuda(cuda)),
                Err(Error::NoCuda { reason }) => Some(reason),
                Err(e) => Some(e.to_string()),
            },
            DeviceKind::Cpu => None,
        };
        let isa = instruction_set(config.instruction_set.as_deref())?;
        let bf16 = tile_unit(config, isa).map_err(|reason| {
            let because = no_cuda.as_ref().map(|reason| format!("; no GPU was opened: {reason}"));
            let precision = config.precision.map_or("", Precision::name);
            Error::Precision { precision, reason: reason + &because.unwrap_or_default() }
        })?;
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool =
            ThreadPool::start(threads).map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        let backend = Backend::Cpu(CpuBackend {
            isa,
            conv: config.conv,
            bf16,
            dry_run: false,
            threads: Arc::new(pool),
            memory: Arc::default(),
        });
        Ok(Device(Arc::new(Inner { backend, no_cuda })))
    }

    /// A CPU device of one thread with this tile unit, whether the processor has it or not.
    #[cfg(all(test, feature = "cuda"))]
    pub(crate) fn with_tile_unit(tiles: TileIsa) -> Device {
        let (Some(isa), Ok(threads)) = (Isa::available().next(), ThreadPool::start(1)) else {
            unreachable!("portable instruction sets and the calling thread are always available")
        };
        let backend = CpuBackend {
            isa,
            conv: ConvAlgorithm::Auto,
            bf16: Some(tiles),
            dry_run: false,
            threads: Arc::new(threads),
            memory: Arc::default(),
        };
        Device(Arc::new(Inner { backend: Backend::Cpu(backend), no_cuda: None }))
    }

    fn of_cuda(cuda: Cuda) -> Device {
        Device(Arc::new(Inner { backend: Backend::Cuda(cuda), no_cuda: None }))
    }

    /// Opens a CPU device with this many threads; 0 means one per available core.
    ///
    /// # Errors
    /// [`Error::Threads`] if the threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads, ..DeviceConfig::default() })
    }

    /// A dry-run device like this one: operations check shapes and allocate memory as on this device, but
    /// compute nothing. The values of its tensors are arbitrary; [`Device::memory`] reports the memory that a
    /// program would need.
    ///
    /// # Errors
    /// [`Error::Cuda`] if the driver fails.
    pub fn dry_run(&self) -> Result<Device> {
        let backend = match &self.0.backend {
            Backend::Cpu(cpu) => Backend::Cpu(CpuBackend {
                isa: cpu.isa,
                conv: cpu.conv,
                bf16: cpu.bf16,
                dry_run: true,
                threads: cpu.threads.clone(),
                memory: Arc::default(),
            }),
            Backend::Cuda(cuda) => Backend::Cuda(cuda.dry_run()?),
        };
        Ok(Device(Arc::new(Inner { backend, no_cuda: None })))
    }

    /// Why [`DeviceKind::Auto`] fell back to the CPU.
    pub fn why_not_cuda(&self) -> Option<&str> {
        self.0.no_cuda.as_deref()
    }

    /// Settings that affect results bitwise: the instruction set and convolution algorithm of a CPU, or the
    /// architecture, precision and engines of a GPU.
    pub fn numerics(&self) -> String {
        match &self.0.backend {
            Backend::Cpu(cpu) => {
                let bf16 = cpu.bf16.map(|tiles| format!("bf16 ({}), ", tiles.name())).unwrap_or_default();
                format!("{bf16}{}, {} convolutions", cpu.isa.name(), cpu.conv.name())
            }
            Backend::Cuda(cuda) => cuda.numerics(),
        }
    }

    /// Number of threads that operations run on; 1 for a GPU, whose work one thread queues.
    pub fn threads(&self) -> usize {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.threads.count(),
            Backend::Cuda(_) => 1,
        }
    }

    /// The instruction set that kernels use: `avx512f`, `avx2+fma`, `neon` or `portable` (or `portable-16`,
    /// for tests); `cuda` on a GPU. Results round differently from one instruction set to another.
    pub fn instruction_set(&self) -> &'static str {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.isa.name(),
            Backend::Cuda(_) => "cuda",
        }
    }

    /// Precision of activations and matrix products.
    pub fn precision(&self) -> Precision {
        match &self.0.backend {
            Backend::Cpu(cpu) if cpu.bf16.is_some() => Precision::Bf16,
            Backend::Cpu(_) => Precision::F32,
            Backend::Cuda(cuda) => cuda.precision(),
        }
    }

    /// Whether this is a CPU that computes in bf16.
    pub(crate) fn has_bf16_cpu(&self) -> bool {
        matches!(&self.0.backend, Backend::Cpu(cpu) if cpu.bf16.is_some())
    }

    /// Number of images to run through consecutive layers at a time, so that a layer's output is still in
    /// cache when the next layer reads it. `shape` is the output's shape for the whole batch. Results do not
    /// depend on it.
    pub fn cache_batch(&self, shape: Shape) -> usize {
        let n = shape.first();
        match shape.dims() {
            _ if self.cuda().is_some() => n.max(1),
            [_, h, w, _] if h * w > SMALL_MAP => {
                let bytes = if self.has_bf16_cpu() { 2 } else { 4 };
                (LAST_LEVEL_CACHE / (bytes * shape.numel_per_sample().max(1))).clamp(1, n.max(1))
            }
            _ => n.max(1),
        }
    }

    /// Number of training steps to queue before the results of the first are read: 1 on a GPU, which computes
    /// a step while the host prepares the next, and 0 on a CPU.
    pub fn pipeline_depth(&self) -> usize {
        usize::from(self.cuda().is_some())
    }

    /// Measures the peak throughput in about a second.
    ///
    /// # Errors
    /// [`Error::Cuda`] or [`Error::OutOfMemory`] if a GPU fails.
    pub fn measure_peak_throughput(&self) -> Result<PeakThroughput> {
        match &self.0.backend {
            Backend::Cpu(_) => Ok(crate::cpu::measure(self.cpu_context())),
            Backend::Cuda(cuda) => crate::cuda::measure(cuda),
        }
    }

    /// Waits for all work queued on a GPU; returns at once on a CPU.
    ///
    /// # Errors
    /// [`Error::Cuda`] if a GPU fails.
    pub fn synchronize(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Cpu(_) => Ok(()),
            Backend::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// Free memory of a GPU, as the driver reports it; `None` for a CPU.
    ///
    /// # Errors
    /// [`Error::Cuda`] if the driver fails.
    pub fn free_memory_bytes(&self) -> Result<Option<usize>> {
        self.cuda().map(|cuda| cuda.free_bytes()).transpose()
    }

    /// Memory of tensors and of the kernels' scratch buffers.
    pub fn memory(&self) -> Memory {
        let (in_use_bytes, peak_bytes) = match &self.0.backend {
            Backend::Cpu(cpu) => cpu.memory.usage_bytes(),
            Backend::Cuda(cuda) => cuda.memory_usage_bytes(),
        };
        Memory { in_use_bytes, peak_bytes }
    }

    /// Fills all memory that no tensor uses with NaN, so that a test sees elements that an operation does not
    /// write.
    ///
    /// # Errors
    /// [`Error::Cuda`] if a GPU fails.
    pub fn poison_free_memory(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.memory.poison(),
            Backend::Cuda(cuda) => cuda.poison_free_memory()?,
        }
        Ok(())
    }

    /// Autotuned cuDNN engines of a GPU: shape and pass of the convolution, index of the engine in cuDNN's
    /// list, and its time in microseconds. Empty for a CPU.
    pub fn cudnn_autotune_results(&self) -> Vec<(String, usize, f64)> {
        self.cuda().map(|cuda| cuda.describe_choices()).unwrap_or_default()
    }

    /// The GPU's properties as cuDNN's JSON, from which cuDNN can plan without the GPU; `None` for a CPU.
    ///
    /// # Errors
    /// [`Error::Cuda`] if cuDNN fails.
    pub fn cudnn_properties(&self) -> Result<Option<String>> {
        self.cuda().map(|cuda| cuda.device_properties()).transpose()
    }

    /// The GPU, or `None` on a CPU.
    pub(crate) fn cuda(&self) -> Option<&Cuda> {
        match &self.0.backend {
            Backend::Cpu(_) => None,
            Backend::Cuda(cuda) => Some(cuda),
        }
    }

    /// The CPU context of an operation whose operands are in host memory.
    pub(crate) fn cpu_context(&self) -> Cpu<'_> {
        match &self.0.backend {
            Backend::Cpu(CpuBackend { isa, conv, bf16, dry_run, threads, memory }) => {
                Cpu { isa: *isa, conv: *conv, bf16: *bf16, dry_run: *dry_run, threads, memory }
            }
            Backend::Cuda(_) => unreachable!("a GPU device has no operands in host memory"),
        }
    }

    /// The GPU of an operation whose operands are in GPU memory.
    pub(crate) fn cuda_context(&self) -> &Cuda {
        match self.cuda() {
            Some(cuda) => cuda,
            None => unreachable!("a CPU device has no operands in GPU memory"),
        }
    }

    /// Whether operations can mix tensors of both devices; all CPU devices of one precision share host memory.
    pub(crate) fn shares_memory_with(&self, other: &Device) -> bool {
        let on_cpu = self.cuda().is_none() && other.cuda().is_none();
        Arc::ptr_eq(&self.0, &other.0) || on_cpu && self.has_bf16_cpu() == other.has_bf16_cpu()
    }
}

fn instruction_set(name: Option<&str>) -> Result<Isa> {
    let found = Isa::available().find(|isa| name.is_none_or(|name| name == isa.name()));
    found.ok_or_else(|| Error::InstructionSet {
        name: name.unwrap_or_default().to_owned(),
        available: Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
    })
}

/// The unit that multiplies bf16 tiles, if bf16 is requested. The portable instruction sets, which are for tests, use a
/// software model.
fn tile_unit(config: &DeviceConfig, isa: Isa) -> std::result::Result<Option<TileIsa>, String> {
    match (config.precision, isa) {
        (None | Some(Precision::F32), _) => Ok(None),
        (Some(Precision::Tf32), _) => Err("a CPU computes in f32 or bf16".into()),
        (Some(Precision::Bf16), Isa::Portable | Isa::PortableWide) => Ok(Some(TileIsa::Model)),
        (Some(Precision::Bf16), _) => TileIsa::detect().map(Some),
    }
}

/// Kind, threads or GPU, instruction set or precision, and the convolution algorithm unless it is automatic.
impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = match &self.0.backend {
            Backend::Cpu(cpu) => cpu,
            Backend::Cuda(cuda) => return f.write_str(&cuda.describe()),
        };
        write!(f, "cpu, {} threads, {}", cpu.threads.count(), cpu.isa.name())?;
        if let Some(tiles) = cpu.bf16 {
            write!(f, ", bf16 ({})", tiles.name())?;
        }
        match cpu.conv {
            ConvAlgorithm::Auto => Ok(()),
            algorithm => write!(f, ", {} convolutions", algorithm.name()),
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({self})")
    }
}
