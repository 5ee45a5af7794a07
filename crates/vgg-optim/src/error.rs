//! Errors of the optimiser and of schedules.

use vgg_error::ErrorKind;

/// Result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Invalid settings or velocities, or a tensor operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{0}")]
    Config(String),
    /// A saved velocity does not match a parameter.
    #[error("the velocity of {name} {reason}")]
    Velocity {
        /// Name of the parameter.
        name: String,
        /// The mismatch.
        reason: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
}

impl Error {
    /// The kind of the error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Tensor(source) => source.kind(),
            Error::Config(_) | Error::Velocity { .. } => ErrorKind::Usage,
        }
    }
}
