//! Errors of defining and running networks.

use vgg_error::ErrorKind;

/// Result of an operation on networks.
pub type Result<T> = std::result::Result<T, Error>;

/// A network that cannot be defined, or an operation on it that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid specification.
    #[error("the network cannot be built: {0}")]
    Spec(String),
    /// A bug in this crate or its caller.
    #[error("internal error: {0}")]
    Internal(String),
    /// No configuration has this name.
    #[error("unknown configuration {name}; it must be one of {known}")]
    UnknownConfig {
        /// The requested name.
        name: String,
        /// The valid names.
        known: String,
    },
    /// An operation failed in a layer.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// The error of the operation.
        source: vgg_tensor::Error,
    },
    /// Images of a shape that the network does not accept.
    #[error("the network takes images of shape {expected}, but got {got}")]
    Input {
        /// The accepted shapes.
        expected: String,
        /// The shape of the images.
        got: String,
    },
    /// A parameter that the network does not have.
    #[error("the network has no parameter {name}")]
    UnknownParameter {
        /// The requested name.
        name: String,
    },
    /// A layer that the network does not have.
    #[error("config {config} has no layer {name}")]
    UnknownLayer {
        /// The requested name.
        name: String,
        /// The configuration.
        config: &'static str,
    },
    /// Values with a shape other than the parameter's.
    #[error("parameter {name} has shape {expected:?}, but the given values have shape {got:?}")]
    ParameterShape {
        /// Name of the parameter.
        name: String,
        /// Its shape in weights files.
        expected: Vec<usize>,
        /// The shape of the values.
        got: Vec<usize>,
    },
    /// A layer to copy has a different shape in the source network.
    #[error(
        "layer {layer} cannot be copied: its weights have shape {from:?} in the source and {to:?} in this network"
    )]
    Copy {
        /// Name of the layer.
        layer: String,
        /// Shape in the source.
        from: Vec<usize>,
        /// Shape in this network.
        to: Vec<usize>,
    },
    /// No layer of the source matches.
    #[error(
        "no layer of the source, config {from}, can be copied to config {to}: their widths or heads differ"
    )]
    NothingToCopy {
        /// Configuration of the source.
        from: &'static str,
        /// Configuration of this network.
        to: &'static str,
    },
    /// A tensor operation outside of any layer failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
}

impl Error {
    /// The kind of the error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Tensor(source) | Error::Layer { source, .. } => source.kind(),
            Error::Internal(_) => ErrorKind::Internal,
            _ => ErrorKind::Usage,
        }
    }
}

/// Adds a layer's name to an error.
pub(crate) fn in_layer(layer: &str) -> impl FnOnce(vgg_tensor::Error) -> Error {
    move |source| Error::Layer { layer: layer.to_owned(), source }
}
