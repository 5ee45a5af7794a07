//! A device: where tensors live and operations run.

use std::sync::Arc;

use crate::cpu::{Cpu, Isa, Threads};
use crate::storage::MemoryPool;
use crate::{Error, Result};

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Which kind of device.
    pub kind: DeviceKind,
    /// Threads of a CPU device; 0 takes one per available core.
    pub threads: usize,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The best that is present.
    Auto,
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(usize),
}

/// A cheap handle to an open device. A CPU device owns its thread pool and its memory pool.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    isa: Isa,
    threads: Threads,
    memory: Arc<MemoryPool>,
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
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = Threads::start(threads).map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        Ok(Device(Arc::new(Inner { isa: Isa::detect(), threads: pool, memory: Arc::default() })))
    }

    /// Opens the CPU with this many threads; 0 takes one per available core.
    ///
    /// # Errors
    /// [`Error::Threads`] if they cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads })
    }

    /// What this is, for people: kind, threads and instruction set.
    pub fn describe(&self) -> String {
        format!("cpu, {} threads, {}", self.threads(), self.instruction_set())
    }

    /// Number of threads that operations run on.
    pub fn threads(&self) -> usize {
        self.0.threads.count()
    }

    /// The instruction set that kernels use: `avx2+fma` or `portable`. Another one may give other last bits.
    pub fn instruction_set(&self) -> &'static str {
        self.0.isa.name()
    }

    /// Gives memory that no tensor uses back to the system.
    pub fn trim(&self) {
        self.0.memory.trim();
    }

    pub(crate) fn cpu_context(&self) -> Cpu<'_> {
        Cpu { isa: self.0.isa, threads: &self.0.threads, memory: &self.0.memory }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.describe())
    }
}
