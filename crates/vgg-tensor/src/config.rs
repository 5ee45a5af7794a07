//! The settings of a device, and the figures that it reports.

use std::path::PathBuf;

/// Settings of [`crate::Device::open`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceConfig {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Index of the GPU that [`DeviceKind::Auto`] opens. With several processes on a machine, each has a GPU
    /// of its own.
    pub auto_gpu: usize,
    /// Threads of a CPU device; 0 means one per available core.
    pub threads: usize,
    /// Algorithm of 3x3 convolutions on a CPU.
    pub conv: ConvAlgorithm,
    /// Precision of activations and matrix products; `None` takes bf16 on a GPU that supports it, else f32. On a CPU
    /// bf16 needs AMX; with a portable instruction set a software model computes it, hundreds of times slower.
    pub precision: Option<Precision>,
    /// cuDNN engines that a GPU may use.
    pub engines: Engines,
    /// Folder that keeps a GPU's compiled kernels and autotuned cuDNN engines between runs; `None` keeps
    /// nothing. Missing or damaged files are recreated.
    pub cache: Option<PathBuf>,
    /// Instruction set of a CPU device, by its name in [`crate::Device::instruction_set`]; `None` takes the
    /// best that the processor supports.
    pub instruction_set: Option<String>,
}

/// Algorithm of CPU convolutions. `Direct` applies to all filters, every other choice to 3x3 filters over at
/// least eight channels. Under the other choices, 1x1 filters and the forward pass of other unpadded filters
/// are matrix products, and the remaining convolutions are direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConvAlgorithm {
    /// The fastest by a cost model of the shape.
    #[default]
    Auto,
    /// Direct convolution.
    Direct,
    /// Winograd with tiles of 2x2 outputs.
    Winograd2,
    /// Winograd with tiles of 4x4 outputs.
    Winograd4,
    /// Winograd with tiles of 6x6 outputs.
    Winograd6,
}

impl ConvAlgorithm {
    /// Every algorithm with its name.
    pub const ALL: [(&'static str, ConvAlgorithm); 5] = [
        ("auto", ConvAlgorithm::Auto),
        ("direct", ConvAlgorithm::Direct),
        ("winograd2", ConvAlgorithm::Winograd2),
        ("winograd4", ConvAlgorithm::Winograd4),
        ("winograd6", ConvAlgorithm::Winograd6),
    ];

    /// Name, as in [`ConvAlgorithm::ALL`].
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, choice)| *choice == self).map_or("auto", |(name, _)| name)
    }
}

/// cuDNN engines that may compute convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engines {
    /// Engines with bitwise reproducible results.
    #[default]
    Deterministic,
    /// All engines, including those that add in an order that depends on thread timing.
    Any,
}

/// Precision of activations and matrix products. Weights, weight gradients and sums are always in f32. A CPU supports
/// f32, and bf16 if it has AMX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bf16 activations and a bf16 copy of the weights.
    Bf16,
    /// f32 activations; matrix products and convolutions round their operands to TF32.
    Tf32,
    /// f32 throughout.
    F32,
}

impl Precision {
    /// Every precision with its name.
    pub const ALL: [(&'static str, Precision); 3] =
        [("bf16", Precision::Bf16), ("tf32", Precision::Tf32), ("f32", Precision::F32)];

    /// Name, as in [`Precision::ALL`].
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, precision)| *precision == self).map_or("bf16", |(name, _)| name)
    }
}

/// Kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeviceKind {
    /// GPU [`DeviceConfig::auto_gpu`] if it can be opened, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU with this index.
    Cuda(usize),
}

/// Memory use of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the buffers that exist.
    pub in_use_bytes: usize,
    /// High-water mark of the address range that buffers have occupied.
    pub peak_bytes: usize,
}

/// Peak throughput of a device with all its threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakThroughput {
    /// Multiplications and additions in 10^9 a second: f32 vector instructions on a CPU, or products of bf16 tiles if it
    /// computes in bf16; matrix products in the device's precision on a GPU.
    pub gflops: f64,
    /// Memory bandwidth in 10^9 bytes a second: reads on a CPU, copies on a GPU, where a copied byte counts
    /// as two.
    pub read_gb_per_s: f64,
}
