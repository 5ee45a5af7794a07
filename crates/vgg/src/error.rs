//! What can go wrong.

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of the crate in which something went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arguments that do not fit the network or each other.
    #[error("{0}")]
    Config(String),
    /// The run was interrupted; running it again resumes it.
    #[error("interrupted; run it again to resume")]
    Interrupted,
    /// An operation or the device.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The weights file.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// An image or a data set.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// Training.
    #[error(transparent)]
    Experiment(#[from] vgg_experiment::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// This error, with the path of the image that it is about.
    pub(crate) fn of_image(self, path: &std::path::Path) -> Error {
        match self {
            Error::Eval(vgg_eval::Error::Data(e)) => Error::Data(e.of_image(path)),
            other => other,
        }
    }
}
