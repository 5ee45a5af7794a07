//! How a device is chosen and set up, and what it reports.

use std::path::PathBuf;

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceConfig {
    /// Which kind of device.
    pub kind: DeviceKind,
    /// The GPU that [`DeviceKind::Auto`] takes, by its number; where each process of several has one, not the first.
    pub auto_gpu: usize,
    /// Threads of a CPU device; 0 takes one per available core.
    pub threads: usize,
    /// Which algorithm 3x3 convolutions use.
    pub conv: ConvAlgorithm,
    /// What a GPU computes in.
    pub precision: Precision,
    /// Which of cuDNN's engines a GPU may use.
    pub engines: Engines,
    /// Where a GPU's compiled kernels and choices of engines are kept from run to run; nowhere without a folder. What is
    /// missing or damaged there is made anew.
    pub cache: Option<PathBuf>,
    /// Instruction set of a CPU device by the name that [`crate::Device::instruction_set`] gives, for comparisons; without a
    /// name, the processor's best.
    pub instruction_set: Option<String>,
}

/// Which algorithm computes convolutions: `Direct` all of them, the others those of 3x3 filters over at least eight
/// channels. What is left is a matrix product for 1x1 and valid filters, and direct else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConvAlgorithm {
    /// By a cost model, for each shape.
    #[default]
    Auto,
    /// Direct convolution.
    Direct,
    /// Winograd's, with 2x2 outputs a tile.
    Winograd2,
    /// Winograd's, with 4x4 outputs a tile.
    Winograd4,
    /// Winograd's, with 6x6 outputs a tile.
    Winograd6,
}

impl ConvAlgorithm {
    /// Every choice with its name.
    pub const ALL: [(&'static str, ConvAlgorithm); 5] = [
        ("auto", ConvAlgorithm::Auto),
        ("direct", ConvAlgorithm::Direct),
        ("winograd2", ConvAlgorithm::Winograd2),
        ("winograd4", ConvAlgorithm::Winograd4),
        ("winograd6", ConvAlgorithm::Winograd6),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, choice)| *choice == self).map_or("auto", |(name, _)| name)
    }
}

/// Which of cuDNN's engines may compute convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engines {
    /// Those that give the same bits each time.
    #[default]
    Deterministic,
    /// Also those that add in the order in which threads come.
    Any,
}

/// What activations and products are on a GPU. Weights, their gradients and all sums are in f32 always; a CPU computes
/// in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Activations and a copy of the weights in bf16.
    #[default]
    Bf16,
    /// f32 in memory; products round their operands to tf32.
    Tf32,
    /// f32 throughout.
    F32,
}

impl Precision {
    /// Every precision with its name.
    pub const ALL: [(&'static str, Precision); 3] =
        [("bf16", Precision::Bf16), ("tf32", Precision::Tf32), ("f32", Precision::F32)];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, precision)| *precision == self).map_or("bf16", |(name, _)| name)
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

/// Memory that a device has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// In use now.
    pub in_use_bytes: usize,
    /// The most address space that buffers ever spanned, all of which was in use at some time.
    pub peak_bytes: usize,
}

/// PeakThroughput of a device with all of its threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakThroughput {
    /// f32 multiplications and additions, in 10^9 a second.
    pub gflops: f64,
    /// Reading memory, in 10^9 bytes a second.
    pub read_gb_per_s: f64,
}
