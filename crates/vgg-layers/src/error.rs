//! What can go wrong in defining or running a network.

use vgg_error::ErrorKind;

/// Result of an operation on networks.
pub type Result<T> = std::result::Result<T, Error>;

/// A network that cannot be defined, or an operation on it that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A specification that makes no network.
    #[error("the network cannot be built: {0}")]
    Spec(String),
    /// There is no configuration of this name.
    #[error("there is no configuration {name}; it is one of {known}")]
    UnknownConfig {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// An operation failed in a layer.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What the operation said.
        source: vgg_tensor::Error,
    },
    /// Images of a size that the network does not take.
    #[error("the network takes images {expected}, but got {got}")]
    Input {
        /// What it takes.
        expected: String,
        /// The shape that was given.
        got: String,
    },
    /// A parameter that the network does not have.
    #[error("the network has no parameter {name}")]
    UnknownParameter {
        /// The name asked for.
        name: String,
    },
    /// A layer that the network does not have.
    #[error("config {config} has no layer {name}")]
    UnknownLayer {
        /// The name asked for.
        name: String,
        /// The configuration.
        config: &'static str,
    },
    /// Values for a parameter in another shape.
    #[error("parameter {name} has shape {expected:?}, but the given values have {got:?}")]
    ParameterShape {
        /// Name of the parameter.
        name: String,
        /// Its shape in files.
        expected: Vec<usize>,
        /// The shape given.
        got: Vec<usize>,
    },
    /// A layer that should be copied has another shape in the source network.
    #[error("layer {layer} cannot be copied: its weights are {from:?} in the source and {to:?} here")]
    Copy {
        /// Name of the layer.
        layer: String,
        /// Shape in the source.
        from: Vec<usize>,
        /// Shape here.
        to: Vec<usize>,
    },
    /// No layer of the source fits.
    #[error(
        "no layer of the source, config {from}, can be copied to config {to}: their widths or heads differ"
    )]
    NothingToCopy {
        /// Configuration of the source.
        from: &'static str,
        /// Configuration here.
        to: &'static str,
    },
    /// An operation outside of any layer failed.
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Tensor(source) | Error::Layer { source, .. } => source.kind(),
            _ => ErrorKind::Usage,
        }
    }
}

/// Adds a layer's name to an error.
pub(crate) fn in_layer(layer: &str) -> impl FnOnce(vgg_tensor::Error) -> Error {
    move |source| Error::Layer { layer: layer.to_owned(), source }
}
