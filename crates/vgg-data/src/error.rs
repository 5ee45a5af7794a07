//! What can go wrong with data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgg_error::ErrorKind;

/// Result of an operation on data.
pub type Result<T> = std::result::Result<T, Error>;

/// Data that cannot be used, with its path.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A data set or a part of it is not there.
    #[error("{path}: {reason}", path = path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A data set whose parts contradict each other.
    #[error("data set {path}: {reason}", path = path.display())]
    Layout {
        /// The data set.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image that cannot be decoded.
    #[error("cannot decode {path}: {reason}", path = path.display())]
    Decode {
        /// The image.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An image that would be too large for a network at the size that is asked for.
    #[error("{path}: at smallest side {side} it is {h} x {w} pixels, more than 1024 x 1024", path = path.display())]
    TooLarge {
        /// The image, once it is known.
        path: PathBuf,
        /// Smallest side.
        side: usize,
        /// Rows at that size.
        h: usize,
        /// Columns at that size.
        w: usize,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {reason}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Published data that are not what they should be, or not what they were.
    #[error("{path}: {reason}", path = path.display())]
    Source {
        /// An archive, a file, or a name within an archive.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Images or classes of a published data set are missing, and [`crate::prepare::PrepareOptions`] do not allow it.
    #[error("{path}: {reason}", path = path.display())]
    Incomplete {
        /// The data set or a part of it.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A published file whose MD5 sum is not the official one.
    #[error("{path}: the MD5 sum is {found}, and the official one is {expected}: the file is damaged or another one", path = path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its MD5 sum.
        found: String,
        /// The official MD5 sum.
        expected: String,
    },
    /// A prepared data set whose preparation has not been completed.
    #[error("{path}: the preparation is not complete", path = path.display())]
    Unfinished {
        /// The data set.
        path: PathBuf,
    },
    /// Too little space on a disk.
    #[error("{path}: {reason}", path = path.display())]
    NoSpace {
        /// What there is no space for.
        path: PathBuf,
        /// How much is missing.
        reason: String,
    },
    /// A file of a prepared data set.
    #[error("{0}")]
    File(#[source] Arc<vgg_files::Error>),
    /// Settings that do not fit each other.
    #[error("{0}")]
    Config(String),
    /// Somebody asked for a stop.
    #[error("interrupted")]
    Interrupted,
    /// A worker thread failed in a way that it should not.
    #[error("internal error: a loader thread panicked")]
    Worker,
}

impl From<vgg_files::Error> for Error {
    fn from(error: vgg_files::Error) -> Error {
        Error::File(Arc::new(error))
    }
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } | Error::Unfinished { .. } => ErrorKind::Missing,
            Error::Layout { .. }
            | Error::Decode { .. }
            | Error::TooLarge { .. }
            | Error::Source { .. }
            | Error::Incomplete { .. }
            | Error::Checksum { .. } => ErrorKind::BadData,
            Error::Io { .. } | Error::NoSpace { .. } => ErrorKind::Io,
            Error::File(source) => source.kind(),
            Error::Config(_) => ErrorKind::Usage,
            Error::Interrupted => ErrorKind::Other,
            Error::Worker => ErrorKind::Internal,
        }
    }

    /// Whether the fault lies in one image alone.
    pub fn is_bad_image(&self) -> bool {
        matches!(self, Error::Decode { .. } | Error::TooLarge { .. })
    }

    /// Says which image it was, where that was not known.
    pub fn of_image(self, image: &Path) -> Error {
        match self {
            Error::TooLarge { side, h, w, .. } => Error::TooLarge { path: image.to_owned(), side, h, w },
            other => other,
        }
    }
}

/// Adds action and path to an I/O error.
pub(crate) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Missing { path: path.to_owned(), reason: "does not exist".into() }
        }
        _ => Error::Io { action, path: path.to_owned(), reason: e.to_string() },
    }
}
