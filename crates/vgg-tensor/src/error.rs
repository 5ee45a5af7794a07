//! What can go wrong in the compute core.

use crate::Shape;

use vgg_error::ErrorKind;

/// Result of an operation on tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that could not be done, with its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Processes that compute together cannot reach each other.
    #[error("the ranks cannot go on together: {reason}")]
    Group {
        /// What the transport said.
        reason: String,
    },
    /// An operand has another shape than the operation needs.
    #[error("{op}: {operand} must have shape {expected}, but has {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
        /// The shape it should have.
        expected: Shape,
        /// The shape it has.
        got: Shape,
    },
    /// An operand has another number of axes than the operation needs.
    #[error("{op}: {operand} must be {expected}, but has shape {got}")]
    Rank {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
        /// The axes it should have, such as `[N, H, W, C]`.
        expected: &'static str,
        /// The shape it has.
        got: Shape,
    },
    /// Sizes that the operation does not support.
    #[error("{op}: {reason}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What is not supported, with the sizes.
        reason: String,
    },
    /// A class index lies outside of the logits.
    #[error("{op}: target {target} of sample {sample} is not below the number of classes {classes}")]
    Target {
        /// The operation.
        op: &'static str,
        /// The offending class index.
        target: usize,
        /// Position in the batch.
        sample: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A tensor that should be written to is shared with another handle.
    #[error("{op}: {operand} is shared with another tensor and cannot be written in place")]
    Shared {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
    },
    /// Data whose length does not fit a shape.
    #[error("{len} values do not fill shape {shape}")]
    Length {
        /// Number of values given.
        len: usize,
        /// The shape that was asked for.
        shape: Shape,
    },
    /// A bug in this crate.
    #[error("internal error: {0}")]
    Internal(String),
    /// CUDA was requested and is unavailable.
    #[error("CUDA is unavailable: {reason}")]
    NoCuda {
        /// What is missing or does not fit, and what to do.
        reason: String,
    },
    /// A call to CUDA or one of its libraries failed.
    #[error("{call}: {reason}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// What the library said.
        reason: String,
    },
    /// The memory of a GPU does not suffice.
    #[error(
        "the GPU's memory does not suffice: {} MiB more are needed, {} of {} MiB are free; a smaller micro_batch needs less",
        wanted_bytes >> 20, free_bytes >> 20, total_bytes >> 20
    )]
    OutOfMemory {
        /// What could not be had.
        wanted_bytes: usize,
        /// What the driver says is free.
        free_bytes: usize,
        /// All that there is.
        total_bytes: usize,
    },
    /// Operands of one operation are on different devices.
    #[error("{op}: {operand} is on another device than the first operand")]
    Device {
        /// The operation.
        op: &'static str,
        /// The operand at fault.
        operand: &'static str,
    },
    /// An instruction set was asked for that this processor does not have.
    #[error("no instruction set {name} here; there are {available}")]
    InstructionSet {
        /// What was asked for.
        name: String,
        /// What there is.
        available: String,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Threads { .. } | Error::Cuda { .. } | Error::Group { .. } | Error::OutOfMemory { .. } => {
                ErrorKind::Other
            }
            Error::Internal(_) => ErrorKind::Internal,
            Error::Shape { .. }
            | Error::Rank { .. }
            | Error::Unsupported { .. }
            | Error::Target { .. }
            | Error::Shared { .. }
            | Error::Length { .. }
            | Error::NoCuda { .. }
            | Error::Device { .. }
            | Error::InstructionSet { .. } => ErrorKind::Usage,
        }
    }
}
