//! The errors of this crate.

use crate::Shape;

use vgg_error::ErrorKind;

/// Result of an operation on tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed, with its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Communication between the processes of a group failed.
    #[error("the process group failed: {reason}")]
    Group {
        /// The cause, as the transport reports it.
        reason: String,
    },
    /// An operand has the wrong shape.
    #[error("{op}: {operand} must have shape {expected}, but has {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
        /// The shape that the operation needs.
        expected: Shape,
        /// The operand's shape.
        got: Shape,
    },
    /// An operand has the wrong number of axes.
    #[error("{op}: {operand} must be {expected}, but has shape {got}")]
    Rank {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
        /// The axes that the operation needs, such as `[N, H, W, C]`.
        expected: &'static str,
        /// The operand's shape.
        got: Shape,
    },
    /// The operation does not support these sizes or values.
    #[error("{op}: {reason}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What is unsupported, with the sizes.
        reason: String,
    },
    /// A target is not a class index.
    #[error("{op}: target {target} of sample {sample} is out of range for {classes} classes")]
    Target {
        /// The operation.
        op: &'static str,
        /// The invalid class index.
        target: usize,
        /// Position in the batch.
        sample: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A tensor to be written in place has another handle.
    #[error("{op}: {operand} is shared with another tensor and cannot be written in place")]
    Shared {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
    },
    /// The number of values does not match the shape.
    #[error("{len} values do not fill shape {shape}")]
    Length {
        /// Number of values.
        len: usize,
        /// The shape to fill.
        shape: Shape,
    },
    /// A bug in this crate.
    #[error("internal error: {0}")]
    Internal(String),
    /// CUDA is unavailable.
    #[error("CUDA is unavailable: {reason}")]
    NoCuda {
        /// What is missing or unsupported, and the remedy.
        reason: String,
    },
    /// A call to CUDA or one of its libraries failed.
    #[error("{call}: {reason}")]
    Cuda {
        /// The CUDA function.
        call: &'static str,
        /// The library's message.
        reason: String,
    },
    /// An allocation in host memory failed.
    #[error("out of memory: cannot allocate {:.1} MiB; use a smaller batch or network", *bytes as f64 / f64::from(1 << 20))]
    OutOfHostMemory {
        /// Size of the allocation.
        bytes: usize,
    },
    /// A GPU allocation failed for lack of memory.
    #[error(
        "out of GPU memory: cannot allocate {} MiB, {} of {} MiB are free; use a smaller batch",
        wanted_bytes >> 20, free_bytes >> 20, total_bytes >> 20
    )]
    OutOfMemory {
        /// Size of the allocation.
        wanted_bytes: usize,
        /// Free memory, as the driver reports it.
        free_bytes: usize,
        /// Total memory of the GPU.
        total_bytes: usize,
    },
    /// Operands of one operation are on different devices.
    #[error("{op}: {operand} is on another device; all operands must be on one device")]
    Device {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
    },
    /// The processor does not support the requested instruction set.
    #[error("this processor does not support instruction set {name}; it supports {available}")]
    InstructionSet {
        /// The requested instruction set.
        name: String,
        /// The supported instruction sets.
        available: String,
    },
    /// The device does not support the requested precision.
    #[error("precision {precision} is not available: {reason}")]
    Precision {
        /// Name of the requested precision.
        precision: &'static str,
        /// What is missing.
        reason: String,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number of threads requested.
        threads: usize,
        /// The operating system's message.
        reason: String,
    },
}

impl Error {
    /// Kind of this error, from which the exit code follows.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Threads { .. }
            | Error::Cuda { .. }
            | Error::Group { .. }
            | Error::OutOfMemory { .. }
            | Error::OutOfHostMemory { .. } => ErrorKind::Other,
            Error::Internal(_) => ErrorKind::Internal,
            Error::NoCuda { .. } => ErrorKind::NoCuda,
            Error::Shape { .. }
            | Error::Rank { .. }
            | Error::Unsupported { .. }
            | Error::Target { .. }
            | Error::Shared { .. }
            | Error::Length { .. }
            | Error::Device { .. }
            | Error::InstructionSet { .. }
            | Error::Precision { .. } => ErrorKind::Usage,
        }
    }
}
