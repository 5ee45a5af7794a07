//! What can go wrong with weights files.

use std::path::PathBuf;

/// Result of an operation on weights files.
pub type Result<T> = std::result::Result<T, Error>;

/// A weights file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file itself.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
    /// The metadata are missing or wrong.
    #[error("{path}: metadata {key}: {reason}", path = path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Which entry.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors are not those of the network; all differences are listed.
    #[error("{path} does not fit config {config}: {}", differences.join("; "), path = path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The network that the metadata name.
        config: &'static str,
        /// Missing, superfluous and misshapen tensors.
        differences: Vec<String>,
    },
    /// Layers that are asked for are not in the file.
    #[error("{path} has no {}", layers.join(", "), path = path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// The layers.
        layers: Vec<String>,
    },
    /// A value is not a number or infinite.
    #[error("{path}: tensor {tensor} holds a value that is not finite", path = path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
}
