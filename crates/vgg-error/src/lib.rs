//! What the errors of this workspace share: their kinds, and names from outside in a printable form. The
//! `Error` of each crate has a method `kind()`, which returns an [`ErrorKind`].
//!
//! ```
//! use vgg_error::ErrorKind;
//!
//! fn exit_code(kind: ErrorKind) -> u8 {
//!     match kind {
//!         ErrorKind::Usage => 2,
//!         _ => 1,
//!     }
//! }
//! assert_eq!(exit_code(ErrorKind::Usage), 2);
//! ```

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod printable;

pub use printable::{Printable, printable, printable_lines, shortened};

/// The kind of an error. Programs can choose an exit code by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Invalid arguments or settings, or arguments that are incompatible with each other or with the data.
    Usage,
    /// CUDA was requested and is unavailable.
    NoCuda,
    /// A file has corrupt or unexpected contents: an image, weights or a data set.
    BadData,
    /// Images or classes of a published data set are missing.
    Incomplete,
    /// The checksum of a downloaded file is not the published one.
    Checksum,
    /// A file or directory does not exist.
    Missing,
    /// A data set whose preparation is not complete.
    Unfinished,
    /// A file cannot be read or written.
    Io,
    /// A disk has too little space for a data set.
    NoSpace,
    /// A bug in these crates.
    Internal,
    /// Any other error: a device failure, a non-finite loss, an interruption.
    Other,
}
