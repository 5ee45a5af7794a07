//! The error type of experiments.

use vgg_error::ErrorKind;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An experiment that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plan contradicts itself or the data set.
    #[error("{0}")]
    Plan(String),
    /// A settings file or recipe is invalid.
    #[error("{file}: {source}")]
    Settings {
        /// Path of the file, or name of the built-in recipe.
        file: String,
        /// The cause.
        source: Box<Error>,
    },
    /// A run of an experiment failed.
    #[error("run {run}: {source}")]
    Run {
        /// Name of the run.
        run: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The process group failed.
    #[error(transparent)]
    Ranks(#[from] vgg_tensor::Error),
    /// The data set cannot be used.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// A network is invalid.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// A weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] vgg_train::Error),
    /// Evaluation failed.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// The kind of error, for an exit code for instance.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Plan(_) => ErrorKind::Usage,
            Error::Settings { source, .. } | Error::Run { source, .. } => source.kind(),
            Error::Train(vgg_train::Error::Validation(source)) => {
                source.downcast_ref::<vgg_eval::Error>().map_or(ErrorKind::Other, vgg_eval::Error::kind)
            }
            Error::Ranks(source) => source.kind(),
            Error::Data(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Weights(source) => source.kind(),
            Error::Train(source) => source.kind(),
            Error::Eval(source) => source.kind(),
            Error::File(source) => source.kind(),
        }
    }

    /// Wraps this error in [`Error::Settings`].
    pub(crate) fn in_file(self, file: &str) -> Error {
        Error::Settings { file: file.to_owned(), source: Box::new(self) }
    }

    /// Wraps this error in [`Error::Run`].
    pub(crate) fn of_run(self, run: &str) -> Error {
        Error::Run { run: run.to_owned(), source: Box::new(self) }
    }
}
