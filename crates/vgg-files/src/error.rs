//! What can go wrong with files.

use std::io;
use std::path::{Path, PathBuf};

use vgg_error::ErrorKind;

/// Result of an operation on files.
pub type Result<T> = std::result::Result<T, Error>;

/// A file operation that failed, with its path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("{path} does not exist", path = path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The contents are not what they should be.
    #[error("{path} is damaged or not of the expected format: {reason}", path = path.display())]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is too little space on the disk.
    #[error(
        "{path} has {free:.1} MiB free, and {needed:.1} are needed",
        path = path.display(), free = *free as f64 / f64::from(1 << 20), needed = *needed as f64 / f64::from(1 << 20)
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another process", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } => ErrorKind::Missing,
            Error::Corrupt { .. } => ErrorKind::BadData,
            Error::Io { .. } | Error::NoSpace { .. } | Error::Locked { .. } => ErrorKind::Io,
        }
    }

    /// Whether the file is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Missing { .. })
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Error {
        Error::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Adds action and path to an I/O error.
pub(crate) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| match source.kind() {
        io::ErrorKind::NotFound if matches!(action, "read" | "open") => {
            Error::Missing { path: path.to_owned() }
        }
        _ => Error::Io { action, path: path.to_owned(), source },
    }
}
