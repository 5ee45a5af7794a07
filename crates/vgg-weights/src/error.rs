//! Errors of reading and writing weights files.

use std::path::PathBuf;

use vgg_error::ErrorKind;

/// Result of an operation on weights files.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of reading or writing a weights file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened, read or written, or its contents are invalid.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
    /// A metadata entry is missing or invalid.
    #[error("{path}: metadata key {key} {reason}", path = vgg_error::printable(path))]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        key: &'static str,
        /// What is wrong with the entry.
        reason: String,
    },
    /// The tensors do not match the network.
    #[error("{path} does not match config {config}: {}", differences.join("; "), path = vgg_error::printable(path))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The configuration in the metadata, or inferred from the shapes.
        config: &'static str,
        /// All tensors that are missing, unexpected or of the wrong shape.
        differences: Vec<String>,
    },
    /// Requested layers are not in the file.
    #[error("{path} lacks the requested layers {}", layers.join(", "), path = vgg_error::printable(path))]
    Absent {
        /// The file.
        path: PathBuf,
        /// The missing layers.
        layers: Vec<String>,
    },
    /// A tensor contains NaN or infinity.
    #[error("{path}: tensor {tensor} contains a non-finite value", path = vgg_error::printable(path))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
}

impl Error {
    /// The kind of error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::File(source) => source.kind(),
            // An invalid network comes from the file's metadata or shapes.
            _ => ErrorKind::BadData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_contain_path_and_reason() {
        let path = PathBuf::from("w.pth");
        let strings = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let error = Error::Metadata { path: path.clone(), key: "crop", reason: "is missing".into() };
        assert_eq!(error.to_string(), "w.pth: metadata key crop is missing");
        let differences = strings(["fc6 is missing", "fc9 is unexpected"]);
        let error = Error::Tensors { path: path.clone(), config: "B-5x5", differences };
        assert_eq!(error.to_string(), "w.pth does not match config B-5x5: fc6 is missing; fc9 is unexpected");
        let error = Error::Absent { path: path.clone(), layers: strings(["fc6", "fc7"]) };
        assert_eq!(error.to_string(), "w.pth lacks the requested layers fc6, fc7");
        let error = Error::NotFinite { path, tensor: "fc7.bias".into() };
        assert_eq!(error.to_string(), "w.pth: tensor fc7.bias contains a non-finite value");
    }
}
