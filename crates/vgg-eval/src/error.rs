//! What can go wrong in evaluation.

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
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// An operation.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}
