//! The kinds of errors that the crates of this workspace share. The `Error` of each crate has a method `kind()`.
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

/// What went wrong, for programs that have an exit code for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Invalid arguments or settings, or arguments that do not fit each other or the data.
    Usage,
    /// A file with damaged or unexpected contents: an image, weights, a data set.
    BadData,
    /// A file or directory does not exist.
    Missing,
    /// A file cannot be read or written.
    Io,
    /// A bug in these crates.
    Internal,
    /// Anything else: a device that fails, a loss that is not finite, an interruption.
    Other,
}
