//! A device: where tensors live and operations run.

use std::sync::Arc;

use crate::alloc::Arena;
use crate::cpu::{Cpu, Isa, SMALL_MAP, ThreadPool};
use crate::cuda::Cuda;
use crate::{ConvAlgorithm, DeviceConfig, DeviceKind, Error, Memory, PeakThroughput, Result, Shape};

/// Bytes of a layer's output that the processor's last cache is trusted to hold.
const LAST_LEVEL_CACHE: usize = 16 << 20;

/// A cheap handle to an open device. A CPU device owns its threads and its memory; a GPU's has a stream of its own.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    backend: Backend,
    /// Why [`DeviceKind::Auto`] became a CPU.
    no_cuda: Option<String>,
}

enum Backend {
    Cpu(CpuBackend),
    Cuda(Cuda),
}

struct CpuBackend {
    isa: Isa,
    conv: ConvAlgorithm,
    dry_run: bool,
    threads: Arc<ThreadPool>,
    memory: Arc<Arena>,
}

impl Device {
    /// How many GPUs [`Device::open`] finds; none if something is missing that they need.
    pub fn gpus() -> usize {
        Cuda::count().unwrap_or(0)
    }

    /// Opens a device. [`DeviceKind::Auto`] is a GPU if everything is there that one needs, else the CPU.
    ///
    /// # Errors
    /// [`Error::NoCuda`] if CUDA is asked for by name and cannot be used; [`Error::ThreadPool`] if threads cannot be
    /// started; [`Error::InstructionSet`] if there is none of that name.
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
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool =
            ThreadPool::start(threads).map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        let backend = Backend::Cpu(CpuBackend {
            isa,
            conv: config.conv,
            dry_run: false,
            threads: Arc::new(pool),
            memory: Arc::default(),
        });
        Ok(Device(Arc::new(Inner { backend, no_cuda })))
    }

    fn of_cuda(cuda: Cuda) -> Device {
        Device(Arc::new(Inner { backend: Backend::Cuda(cuda), no_cuda: None }))
    }

    /// Opens the CPU with this many threads; 0 takes one per available core.
    ///
    /// # Errors
    /// [`Error::ThreadPool`] if they cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads, ..DeviceConfig::default() })
    }

    /// A device like this one that plans: operations check shapes and take memory as they would here, and leave out
    /// all work. The values of its tensors are arbitrary; [`Device::memory`] tells what a program would need.
    ///
    /// # Errors
    /// [`Error::Cuda`] if the driver fails.
    pub fn dry_run(&self) -> Result<Device> {
        let backend = match &self.0.backend {
            Backend::Cpu(cpu) => Backend::Cpu(CpuBackend {
                isa: cpu.isa,
                conv: cpu.conv,
                dry_run: true,
                threads: cpu.threads.clone(),
                memory: Arc::default(),
            }),
            Backend::Cuda(cuda) => Backend::Cuda(cuda.dry_run()?),
        };
        Ok(Device(Arc::new(Inner { backend, no_cuda: None })))
    }

    /// Why [`DeviceKind::Auto`] became a CPU.
    pub fn why_not_cuda(&self) -> Option<&str> {
        self.0.no_cuda.as_deref()
    }

    /// What decides the last digits of results besides their inputs: instruction set and convolution algorithm of a
    /// CPU, architecture and precision of a GPU.
    pub fn numerics(&self) -> String {
        match &self.0.backend {
            Backend::Cpu(cpu) => format!("{}, {} convolutions", cpu.isa.name(), cpu.conv.name()),
            Backend::Cuda(cuda) => cuda.numerics(),
        }
    }

    /// Number of threads that operations run on; 1 for a GPU, whose work one thread hands out.
    pub fn threads(&self) -> usize {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.threads.count(),
            Backend::Cuda(_) => 1,
        }
    }

    /// The instruction set that kernels use: `avx512f`, `avx2+fma`, `neon` or `portable` (or `portable-16`, to test);
    /// `cuda` on a GPU. Another one may give other last bits.
    pub fn instruction_set(&self) -> &'static str {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.isa.name(),
            Backend::Cuda(_) => "cuda",
        }
    }

    /// How many images are best taken through a row of layers at a time, if the whole batch has this shape after one
    /// of them, so that what a layer writes is still in cache when the next one reads it. Not a matter of bits.
    pub fn cache_batch(&self, shape: Shape) -> usize {
        let n = shape.first();
        match shape.dims() {
            _ if self.cuda().is_some() => n.max(1),
            [_, h, w, _] if h * w > SMALL_MAP => {
                (LAST_LEVEL_CACHE / (4 * shape.numel_per_sample().max(1))).clamp(1, n.max(1))
            }
            _ => n.max(1),
        }
    }

    /// How many steps of a training are best started before the results of the first are asked for: a GPU works on one
    /// while the host prepares the next.
    pub fn pipeline_depth(&self) -> usize {
        usize::from(self.cuda().is_some())
    }

    /// Measures what the device can do at best, in about a second.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn measure_peak_throughput(&self) -> Result<PeakThroughput> {
        match &self.0.backend {
            Backend::Cpu(_) => Ok(crate::cpu::measure(self.cpu_context())),
            Backend::Cuda(cuda) => crate::cuda::measure(cuda),
        }
    }

    /// Waits for all work that a GPU was given; a CPU has done it.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn synchronize(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Cpu(_) => Ok(()),
            Backend::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// Memory of a GPU that nobody has taken yet; nothing for a CPU, whose memory is the system's.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn free_memory_bytes(&self) -> Result<Option<usize>> {
        self.cuda().map(|cuda| cuda.free_bytes()).transpose()
    }

    /// Memory of tensors and of what kernels need besides.
    pub fn memory(&self) -> Memory {
        let (in_use_bytes, peak_bytes) = match &self.0.backend {
            Backend::Cpu(cpu) => cpu.memory.usage_bytes(),
            Backend::Cuda(cuda) => cuda.memory_usage_bytes(),
        };
        Memory { in_use_bytes, peak_bytes }
    }

    /// Fills all memory that no tensor uses with NaN, so that an operation that forgets to write something shows it.
    /// For tests.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn poison_free_memory(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Cpu(cpu) => cpu.memory.poison(),
            Backend::Cuda(cuda) => cuda.poison_free_memory()?,
        }
        Ok(())
    }

    /// The engines that a GPU's convolutions were given: shape and pass, place in cuDNN's list, and the microseconds that
    /// it took when it was timed against the others. Nothing for a CPU.
    pub fn cudnn_autotune_results(&self) -> Vec<(String, usize, f64)> {
        self.cuda().map(|cuda| cuda.describe_choices()).unwrap_or_default()
    }

    /// What cuDNN says of a GPU, as JSON, from which it can plan without the GPU; nothing for a CPU.
    ///
    /// # Errors
    /// If cuDNN fails.
    pub fn cudnn_properties(&self) -> Result<Option<String>> {
        self.cuda().map(|cuda| cuda.device_properties()).transpose()
    }

    /// The GPU, if it is one.
    pub(crate) fn cuda(&self) -> Option<&Cuda> {
        match &self.0.backend {
            Backend::Cpu(_) => None,
            Backend::Cuda(cuda) => Some(cuda),
        }
    }

    /// The CPU, for an operation whose operands are there.
    pub(crate) fn cpu_context(&self) -> Cpu<'_> {
        match &self.0.backend {
            Backend::Cpu(CpuBackend { isa, conv, dry_run, threads, memory }) => {
                Cpu { isa: *isa, conv: *conv, dry_run: *dry_run, threads, memory }
            }
            Backend::Cuda(_) => unreachable!("operands in host memory are on a CPU device"),
        }
    }

    /// The GPU, for an operation whose operands are there.
    pub(crate) fn cuda_context(&self) -> &Cuda {
        match self.cuda() {
            Some(cuda) => cuda,
            None => unreachable!("operands in a GPU's memory are on a GPU"),
        }
    }

    /// Whether the tensors of one can be operands on the other: host memory is the same for all CPU devices.
    pub(crate) fn shares_memory_with(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.cuda().is_none() && other.cuda().is_none()
    }
}

fn instruction_set(name: Option<&str>) -> Result<Isa> {
    let found = Isa::available().find(|isa| name.is_none_or(|name| name == isa.name()));
    found.ok_or_else(|| Error::InstructionSet {
        name: name.unwrap_or_default().to_owned(),
        available: Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
    })
}

/// Kind, threads or GPU, instruction set or precision, and the convolution algorithm if it is not automatic.
impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = match &self.0.backend {
            Backend::Cpu(cpu) => cpu,
            Backend::Cuda(cuda) => return f.write_str(&cuda.describe()),
        };
        write!(f, "cpu, {} threads, {}", cpu.threads.count(), cpu.isa.name())?;
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
