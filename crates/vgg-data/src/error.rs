//! Errors of this crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgg_error::ErrorKind;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error in data or settings.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder does not exist, or holds no data.
    #[error("{path}: {reason}", path = vgg_error::printable(path))]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The parts of a data set contradict each other.
    #[error("data set {path}: {reason}", path = vgg_error::printable(path))]
    Layout {
        /// The data set.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image cannot be decoded.
    #[error("cannot decode {path}: {reason}", path = vgg_error::printable(path))]
    Decode {
        /// The image.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A rescaled image has more than 50 million pixels.
    #[error("{path}: rescaled to smallest side {side} it has {h} x {w} pixels; at most 50 million are allowed", path = vgg_error::printable(path))]
    TooLarge {
        /// The image; empty until [`Error::of_image`] sets it.
        path: PathBuf,
        /// Smallest side after rescaling.
        side: usize,
        /// Height after rescaling.
        h: usize,
        /// Width after rescaling.
        w: usize,
    },
    /// The system cannot start a thread.
    #[error("cannot start a thread: {reason}")]
    Threads {
        /// The system's reason.
        reason: String,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}: {reason}", path = vgg_error::printable(path))]
    Io {
        /// The operation that failed, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's message.
        reason: String,
    },
    /// A source of a published data set has unexpected contents, or has changed.
    #[error("{path}: {reason}", path = vgg_error::printable(path))]
    Source {
        /// An archive, a file, or an entry of an archive.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Images or classes of a published data set are missing, which the source does not allow.
    #[error("{path}: {reason}", path = vgg_error::printable(path))]
    Incomplete {
        /// The data set or its part.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The MD5 checksum of a published file differs from the official one.
    #[error("{path}: MD5 checksum {found} differs from the official {expected}: the file is damaged or is a different file", path = vgg_error::printable(path))]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The computed MD5 checksum.
        found: String,
        /// The official MD5 checksum.
        expected: String,
    },
    /// The preparation of a data set has not finished.
    #[error("{path}: the preparation of this data set has not finished", path = vgg_error::printable(path))]
    Unfinished {
        /// The data set.
        path: PathBuf,
    },
    /// The file system has too little free space.
    #[error("{path}: {reason}", path = vgg_error::printable(path))]
    NoSpace {
        /// The file or folder to be written.
        path: PathBuf,
        /// The required and the available space.
        reason: String,
    },
    /// A file of a prepared data set cannot be read or written.
    #[error(transparent)]
    File(Arc<vgg_files::Error>),
    /// A setting is invalid, or settings contradict each other.
    #[error("{0}")]
    Config(String),
    /// The operation was interrupted on request.
    #[error("interrupted")]
    Interrupted,
    /// A worker thread panicked.
    #[error("internal error: a loader thread panicked")]
    Worker,
}

impl From<vgg_files::Error> for Error {
    fn from(error: vgg_files::Error) -> Error {
        Error::File(Arc::new(error))
    }
}

impl Error {
    /// The kind of error, from which programs derive their exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } => ErrorKind::Missing,
            Error::Unfinished { .. } => ErrorKind::Unfinished,
            Error::Incomplete { .. } => ErrorKind::Incomplete,
            Error::Checksum { .. } => ErrorKind::Checksum,
            Error::NoSpace { .. } => ErrorKind::NoSpace,
            Error::Layout { .. } | Error::Decode { .. } | Error::TooLarge { .. } | Error::Source { .. } => {
                ErrorKind::BadData
            }
            Error::Io { .. } => ErrorKind::Io,
            Error::File(source) => source.kind(),
            Error::Config(_) => ErrorKind::Usage,
            Error::Interrupted | Error::Threads { .. } => ErrorKind::Other,
            Error::Worker => ErrorKind::Internal,
        }
    }

    /// Whether the error concerns a single image: [`Error::Decode`] or [`Error::TooLarge`].
    pub fn is_bad_image(&self) -> bool {
        matches!(self, Error::Decode { .. } | Error::TooLarge { .. })
    }

    /// Sets the path of [`Error::TooLarge`]; returns other errors unchanged.
    pub fn of_image(self, image: &Path) -> Error {
        match self {
            Error::TooLarge { side, h, w, .. } => Error::TooLarge { path: image.to_owned(), side, h, w },
            other => other,
        }
    }
}

/// Converts an I/O error: `NotFound` to [`Error::Missing`], others to [`Error::Io`] with `action` and `path`.
pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Missing { path: path.to_owned(), reason: "does not exist".into() }
        }
        _ => Error::Io { action, path: path.to_owned(), reason: e.to_string() },
    }
}
