//! What can go wrong in an experiment.

use vgg_error::ErrorKind;

/// Result of an experiment.
pub type Result<T> = std::result::Result<T, Error>;

/// An experiment that could not be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plan that contradicts itself or the data set.
    #[error("{0}")]
    Plan(String),
    /// A file of settings that cannot be used.
    #[error("{file}: {source}")]
    Settings {
        /// The file, or the recipe that comes with the program.
        file: String,
        /// Why.
        source: Box<Error>,
    },
    /// A run of the experiment failed.
    #[error("run {run}: {source}")]
    Run {
        /// Its name.
        run: String,
        /// Why.
        source: Box<Error>,
    },
    /// The processes that do it together.
    #[error("{0}")]
    Ranks(#[from] vgg_tensor::Error),
    /// The data set.
    #[error("{0}")]
    Data(#[from] vgg_data::Error),
    /// A network.
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
    /// A weights file.
    #[error("{0}")]
    Weights(#[from] vgg_weights::Error),
    /// Training.
    #[error("{0}")]
    Train(#[from] vgg_train::Error),
    /// Evaluation.
    #[error("{0}")]
    Eval(#[from] vgg_eval::Error),
    /// A file.
    #[error("{0}")]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
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

    /// This error of the settings in a file.
    pub(crate) fn in_file(self, file: &str) -> Error {
        Error::Settings { file: file.to_owned(), source: Box::new(self) }
    }

    /// This error of a run.
    pub(crate) fn of_run(self, run: &str) -> Error {
        Error::Run { run: run.to_owned(), source: Box::new(self) }
    }
}
