//! A device: where tensors live and operations run.

use std::sync::Arc;

use crate::cpu::{Cpu, Isa, Limits, Threads};
use crate::storage::Arena;
use crate::{Error, Result, Shape};

/// Bytes of a layer's output that the processor's last cache is trusted to hold.
const LAST_LEVEL_CACHE: usize = 16 << 20;

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceConfig {
    /// Which kind of device.
    pub kind: DeviceKind,
    /// Threads of a CPU device; 0 takes one per available core.
    pub threads: usize,
    /// Which algorithm 3x3 convolutions use.
    pub conv: ConvChoice,
    /// Instruction set of a CPU device by the name that [`Device::instruction_set`] gives, for comparisons; without a
    /// name, the processor's best.
    pub instruction_set: Option<String>,
}

/// Which algorithm computes convolutions: `Direct` all of them, the others those of 3x3 filters over at least eight
/// channels. What is left is a matrix product for 1x1 and valid filters, and direct else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConvChoice {
    /// By a cost model, for each shape.
    #[default]
    Auto,
    /// Sums of products as they stand.
    Direct,
    /// Winograd's, with 2x2 outputs a tile.
    Winograd2,
    /// Winograd's, with 4x4 outputs a tile.
    Winograd4,
    /// Winograd's, with 6x6 outputs a tile.
    Winograd6,
}

impl ConvChoice {
    /// Every choice with its name.
    pub const ALL: [(&'static str, ConvChoice); 5] = [
        ("auto", ConvChoice::Auto),
        ("direct", ConvChoice::Direct),
        ("winograd2", ConvChoice::Winograd2),
        ("winograd4", ConvChoice::Winograd4),
        ("winograd6", ConvChoice::Winograd6),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, choice)| *choice == self).map_or("auto", |(name, _)| name)
    }
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The best that is present.
    #[default]
    Auto,
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(usize),
}

/// A cheap handle to an open device. A CPU device owns its threads and its memory.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    isa: Isa,
    conv: ConvChoice,
    planning: bool,
    threads: Arc<Threads>,
    memory: Arc<Arena>,
}

/// Memory that a device has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// In use now.
    pub in_use_bytes: usize,
    /// The most address space that buffers ever spanned, all of which was in use at some time.
    pub peak_bytes: usize,
}

impl Device {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoCuda`] if CUDA is asked for by name and there is none; [`Error::Threads`] if threads cannot be
    /// started.
    pub fn open(config: &DeviceConfig) -> Result<Device> {
        if let DeviceKind::Cuda(_) = config.kind {
            return Err(Error::NoCuda);
        }
        let isa = instruction_set(config.instruction_set.as_deref())?;
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = Threads::start(threads).map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        Ok(Device(Arc::new(Inner {
            isa,
            conv: config.conv,
            planning: false,
            threads: Arc::new(pool),
            memory: Arc::default(),
        })))
    }

    /// Opens the CPU with this many threads; 0 takes one per available core.
    ///
    /// # Errors
    /// [`Error::Threads`] if they cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads, ..DeviceConfig::default() })
    }

    /// A device like this one that plans: operations check shapes and take memory as they would here, and leave out
    /// all work that is shared among threads. The values of its tensors are arbitrary; [`Device::memory`] tells what a program would need.
    pub fn planning(&self) -> Device {
        let Inner { isa, conv, ref threads, .. } = *self.0;
        let threads = threads.clone();
        Device(Arc::new(Inner { isa, conv, planning: true, threads, memory: Arc::default() }))
    }

    /// What this is, for people: kind, threads, instruction set, and how it convolves if that was chosen.
    pub fn describe(&self) -> String {
        let conv = match self.0.conv {
            ConvChoice::Auto => String::new(),
            choice => format!(", {} convolutions", choice.name()),
        };
        format!("cpu, {} threads, {}{conv}", self.threads(), self.instruction_set())
    }

    /// What decides the last digits of results besides their inputs: instruction set and convolution algorithm.
    pub fn numerics(&self) -> String {
        format!("{}, {} convolutions", self.instruction_set(), self.0.conv.name())
    }

    /// Number of threads that operations run on.
    pub fn threads(&self) -> usize {
        self.0.threads.count()
    }

    /// The instruction set that kernels use: `avx512f`, `avx2+fma`, `neon` or `portable` (or
    /// `portable-16`, to test). Another one may give other last bits.
    pub fn instruction_set(&self) -> &'static str {
        self.0.isa.name()
    }

    /// How many images are best taken through a row of layers at a time, if the whole batch has this shape after one
    /// of them, so that what a layer writes is still in cache when the next one reads it. Not a matter of bits.
    pub fn images_at_once(&self, shape: Shape) -> usize {
        let n = shape.first();
        match shape.dims() {
            [_, h, w, _] if h * w > crate::ops::conv2d::SMALL_MAP => {
                (LAST_LEVEL_CACHE / (4 * shape.per_image().max(1))).clamp(1, n.max(1))
            }
            _ => n.max(1),
        }
    }

    /// Measures what the device can do at best, in about a second.
    pub fn measure_limits(&self) -> Limits {
        crate::cpu::measure(self.cpu_context())
    }

    /// Memory of tensors and of what kernels need besides.
    pub fn memory(&self) -> Memory {
        let (in_use_bytes, peak_bytes) = self.0.memory.usage_bytes();
        Memory { in_use_bytes, peak_bytes }
    }

    /// Gives memory that no tensor uses back to the system.
    pub fn trim(&self) {
        self.0.memory.trim();
    }

    pub(crate) fn cpu_context(&self) -> Cpu<'_> {
        let Inner { isa, conv, planning, ref threads, ref memory } = *self.0;
        Cpu { isa, conv, planning, threads, memory }
    }
}

fn instruction_set(name: Option<&str>) -> Result<Isa> {
    let found = Isa::available().find(|isa| name.is_none_or(|name| name == isa.name()));
    found.ok_or_else(|| Error::InstructionSet {
        name: name.unwrap_or_default().to_owned(),
        available: Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
    })
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.describe())
    }
}
