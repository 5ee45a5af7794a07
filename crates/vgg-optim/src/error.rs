//! What can go wrong in optimisation.

use vgg_error::ErrorKind;

/// Result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An optimiser or schedule that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that make no sense.
    #[error("{0}")]
    Config(String),
    /// A saved velocity that belongs to no parameter, or is missing.
    #[error("the velocity of {name} {reason}")]
    Velocity {
        /// Name of the parameter.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation on tensors failed.
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Tensor(source) => source.kind(),
            Error::Config(_) | Error::Velocity { .. } => ErrorKind::Usage,
        }
    }
}
