//! What can go wrong in an experiment.

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
    #[error(transparent)]
    Ranks(#[from] vgg_tensor::Error),
    /// The data set.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// A network.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// A weights file.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// Training.
    #[error(transparent)]
    Train(#[from] vgg_train::Error),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// This error of the settings in a file.
    pub(crate) fn in_file(self, file: &str) -> Error {
        Error::Settings { file: file.to_owned(), source: Box::new(self) }
    }

    /// This error of a run.
    pub(crate) fn of_run(self, run: &str) -> Error {
        Error::Run { run: run.to_owned(), source: Box::new(self) }
    }
}
