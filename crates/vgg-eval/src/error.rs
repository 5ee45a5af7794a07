//! What can go wrong in evaluation.

use vgg_error::ErrorKind;

/// Result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;

/// An evaluation that could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not fit the network or each other.
    #[error("{0}")]
    Config(String),
    /// The network and the data set have different numbers of classes.
    #[error("the network has {network} classes, but the data set has {dataset}")]
    Classes {
        /// Of the network.
        network: usize,
        /// Of the data set.
        dataset: usize,
    },
    /// Whoever asked for it wants it no longer.
    #[error("the evaluation was interrupted")]
    Interrupted,
    /// Every image was left out.
    #[error("no image of {path} could be shown to the network", path = path.display())]
    NoImages {
        /// The data set.
        path: std::path::PathBuf,
    },
    /// A posterior file that is not one.
    #[error("{path} is no posterior file: {reason}", path = path.display())]
    Posteriors {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Posteriors that cannot be put together.
    #[error("{0}")]
    Fusion(String),
    /// The data.
    #[error("{0}")]
    Data(#[from] vgg_data::Error),
    /// The network.
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
    /// An operation.
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
    /// A file.
    #[error("{0}")]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config(_) | Error::Classes { .. } | Error::Fusion(_) => ErrorKind::Usage,
            Error::Posteriors { .. } | Error::NoImages { .. } => ErrorKind::BadData,
            Error::Interrupted => ErrorKind::Other,
            Error::Data(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Tensor(source) => source.kind(),
            Error::File(source) => source.kind(),
        }
    }
}
