//! The error type of this crate.

use vgg_error::ErrorKind;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error, by the crate in which it occurred.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arguments that do not fit the network or each other.
    #[error("{0}")]
    Config(String),
    /// The run was interrupted. Running it again resumes it.
    #[error("interrupted; run again to resume")]
    Interrupted,
    /// A tensor operation or the device failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// The network is invalid.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// An image or a data set cannot be used.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// Evaluation failed.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// Training failed.
    #[error(transparent)]
    Experiment(#[from] vgg_experiment::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
}

impl Error {
    /// The kind of error, for an exit code for instance.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config(_) => ErrorKind::Usage,
            Error::Interrupted => ErrorKind::Other,
            Error::Tensor(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Weights(source) => source.kind(),
            Error::Data(source) => source.kind(),
            Error::Eval(source) => source.kind(),
            Error::Experiment(source) => source.kind(),
            Error::File(source) => source.kind(),
        }
    }

    /// Adds the path of the image to this error.
    pub(crate) fn of_image(self, path: &std::path::Path) -> Error {
        match self {
            Error::Eval(vgg_eval::Error::Data(e)) => Error::Data(e.of_image(path)),
            other => other,
        }
    }
}

/// The kind of an error of any of these crates or of [`std::io`]; `None` for other errors.
///
/// Errors of the crates contain those of lower crates, so the outermost error is enough.
pub fn error_kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    macro_rules! kind_of {
        ($($library:ty),*) => {
            [$(error.downcast_ref::<$library>().map(<$library>::kind)),*]
        };
    }
    let kinds = kind_of!(
        Error,
        vgg_data::Error,
        vgg_eval::Error,
        vgg_experiment::Error,
        vgg_files::Error,
        vgg_layers::Error,
        vgg_optim::Error,
        vgg_tensor::Error,
        vgg_train::Error,
        vgg_weights::Error
    );
    kinds.into_iter().flatten().next().or(error.is::<std::io::Error>().then_some(ErrorKind::Io))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_every_library_have_a_kind_alone_and_wrapped() {
        let memory =
            || vgg_train::Error::Memory { micro_batch: 8, needed_bytes: 2, free_bytes: 1, fitting: 4 };
        assert_eq!(error_kind(&memory()), Some(ErrorKind::Usage));
        assert_eq!(error_kind(&vgg_experiment::Error::Train(memory())), Some(ErrorKind::Usage));
        assert_eq!(error_kind(&Error::Experiment(memory().into())), Some(ErrorKind::Usage));
        assert_eq!(error_kind(&vgg_optim::Error::Config("lr".into())), Some(ErrorKind::Usage));
        assert_eq!(error_kind(&vgg_eval::Error::Fusion("none".into())), Some(ErrorKind::Usage));
        let refused =
            vgg_train::Error::Validation(Box::new(vgg_eval::Error::NoImages { path: "set".into() }));
        assert_eq!(error_kind(&vgg_experiment::Error::Train(refused)), Some(ErrorKind::BadData));
        assert_eq!(error_kind(&std::io::Error::other("disk")), Some(ErrorKind::Io));
        assert_eq!(error_kind(&std::fmt::Error), None);
    }
}
