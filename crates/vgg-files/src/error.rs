//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use vgg_error::ErrorKind;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A file operation that failed, with its path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}", path = vgg_error::printable(path))]
    Io {
        /// The operation that failed, such as `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file does not exist.
    #[error("{path} does not exist", path = vgg_error::printable(path))]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The file is damaged or has another format.
    #[error("{path} is damaged or not of the expected format: {reason}", path = vgg_error::printable(path))]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The file system has too little free space.
    #[error(
        "{path} has {free:.1} MiB free, but {needed:.1} MiB are needed",
        path = vgg_error::printable(path), free = *free as f64 / f64::from(1 << 20), needed = *needed as f64 / f64::from(1 << 20)
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Required space in bytes.
        needed: u64,
        /// Free space in bytes.
        free: u64,
    },
    /// Another process holds the lock of the directory.
    #[error("{path} is in use by another process", path = vgg_error::printable(path))]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

impl Error {
    /// The kind of error, from which programs derive their exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } => ErrorKind::Missing,
            Error::Corrupt { .. } => ErrorKind::BadData,
            Error::Io { .. } | Error::NoSpace { .. } | Error::Locked { .. } => ErrorKind::Io,
        }
    }

    /// Whether this is [`Error::Missing`].
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Missing { .. })
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Error {
        Error::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Converts an I/O error: `NotFound` of `read` or `open` to [`Error::Missing`], others to [`Error::Io`].
pub(crate) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| match source.kind() {
        io::ErrorKind::NotFound if matches!(action, "read" | "open") => {
            Error::Missing { path: path.to_owned() }
        }
        _ => Error::Io { action, path: path.to_owned(), source },
    }
}
