//! Errors of evaluation.

use vgg_error::ErrorKind;

/// Result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings do not match the network or each other.
    #[error("{0}")]
    Config(String),
    /// A bug in this crate.
    #[error("internal error: {0}")]
    Internal(String),
    /// The ranks of a process group differ: in their settings, or in the program that they run.
    #[error("{0}")]
    Ranks(String),
    /// The network and the data set have different numbers of classes.
    #[error("the network has {network} classes, but the data set has {dataset}")]
    Classes {
        /// Number of classes of the network.
        network: usize,
        /// Number of classes of the data set.
        dataset: usize,
    },
    /// The progress callback stopped the evaluation, on this rank or another one.
    #[error("the evaluation was interrupted")]
    Interrupted,
    /// The output of the network is NaN or infinite.
    #[error("{0} are not finite: the weights are damaged, or too large for the input")]
    NotFinite(&'static str),
    /// Every image was skipped.
    #[error("no image of {path} could be evaluated", path = vgg_error::printable(path))]
    NoImages {
        /// The data set.
        path: std::path::PathBuf,
    },
    /// A posteriors file is invalid.
    #[error("{path} is not a valid posteriors file: {reason}", path = vgg_error::printable(path))]
    Posteriors {
        /// The file.
        path: std::path::PathBuf,
        /// What is invalid.
        reason: String,
    },
    /// Posteriors cannot be fused, merged or compared.
    #[error("{0}")]
    Fusion(String),
    /// Reading images failed.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// A layer or the network failed.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// A tensor operation or a collective failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// The kind of error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config(_) | Error::Ranks(_) | Error::Classes { .. } | Error::Fusion(_) => ErrorKind::Usage,
            Error::Internal(_) => ErrorKind::Internal,
            Error::Posteriors { .. } | Error::NoImages { .. } => ErrorKind::BadData,
            Error::Interrupted | Error::NotFinite(_) => ErrorKind::Other,
            Error::Data(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Tensor(source) => source.kind(),
            Error::File(source) => source.kind(),
        }
    }
}
