//! What can go wrong with weights files.

use std::path::PathBuf;

use vgg_error::ErrorKind;

/// Result of an operation on weights files.
pub type Result<T> = std::result::Result<T, Error>;

/// A weights file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file itself.
    #[error("{0}")]
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
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::File(source) => source.kind(),
            // An invalid network is in the file.
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
        assert_eq!(error.to_string(), "w.pth: metadata crop: is missing");
        let differences = strings(["fc6 is missing", "fc9 is superfluous"]);
        let error = Error::Tensors { path: path.clone(), config: "B-5x5", differences };
        assert_eq!(error.to_string(), "w.pth does not fit config B-5x5: fc6 is missing; fc9 is superfluous");
        let error = Error::Absent { path: path.clone(), layers: strings(["fc6", "fc7"]) };
        assert_eq!(error.to_string(), "w.pth has no fc6, fc7");
        let error = Error::NotFinite { path, tensor: "fc7.bias".into() };
        assert_eq!(error.to_string(), "w.pth: tensor fc7.bias holds a value that is not finite");
    }
}
