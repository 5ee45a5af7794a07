//! Errors of training.

use std::path::PathBuf;

use vgg_error::ErrorKind;

use crate::LayerNorms;

/// Result of training.
pub type Result<T> = std::result::Result<T, Error>;

/// An error that ends a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid, or the run cannot proceed with these settings.
    #[error("{0}")]
    Config(String),
    /// A bug in this crate.
    #[error("internal error: {0}")]
    Internal(String),
    /// A training step needs more memory than the device has free.
    #[error(
        "a training step with micro_batch = {micro_batch} needs {:.2} GiB, but the GPU has {:.2} GiB free; {}",
        gib(*needed_bytes), gib(*free_bytes),
        if *fitting > 0 { format!("micro_batch = {fitting} fits") } else { "not even one image fits".into() }
    )]
    Memory {
        /// Images per micro-batch.
        micro_batch: usize,
        /// Bytes that the step needs.
        needed_bytes: usize,
        /// Bytes that are free on the device.
        free_bytes: usize,
        /// A smaller micro-batch that fits; 0 if none does.
        fitting: usize,
    },
    /// A loss or gradient was NaN or infinite. The step changed no weight.
    #[error(
        "the loss or a gradient was not finite in epoch {epoch}, step {step} ({n} samples{first}); \
         no weight was changed; try a lower learning rate or another initialisation",
        n = samples.len(), first = LayerNorms::first(layers)
    )]
    NotFinite {
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the run, from 0.
        step: u64,
        /// The samples of the batch.
        samples: Vec<usize>,
        /// Norms of weights and gradients at this step.
        layers: Vec<LayerNorms>,
    },
    /// The run directory contains a run with other settings.
    #[error(
        "{path} contains a run with other settings; use another directory, or remove {path}:\n  {differences}",
        path = vgg_error::printable(path), differences = differences.join("\n  ")
    )]
    OtherRun {
        /// The run directory.
        path: PathBuf,
        /// Each difference: path of the setting, old value and new value.
        differences: Vec<String>,
    },
    /// The run directory has been removed, or its disk is gone.
    #[error("{path} no longer exists; cannot save", path = vgg_error::printable(path))]
    Gone {
        /// The run directory.
        path: PathBuf,
    },
    /// This rank was started with other settings than rank 0.
    #[error(
        "rank {rank} was started with other settings than rank 0; all ranks need the same:\n  {differences}",
        differences = differences.join("\n  ")
    )]
    OtherRank {
        /// This rank.
        rank: usize,
        /// Each difference: path of the setting, value on rank 0 and value on this rank.
        differences: Vec<String>,
    },
    /// A weight or velocity is not finite, although every loss and gradient was.
    #[error("{name} has a value that is not finite after step {step}; the previous checkpoint is kept")]
    BadValue {
        /// Name of the parameter.
        name: String,
        /// Number of completed steps.
        step: u64,
    },
    /// Loading data failed.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// A layer or the network failed.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The optimiser failed.
    #[error(transparent)]
    Optim(#[from] vgg_optim::Error),
    /// Writing weights failed.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// A tensor operation or a collective failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
    /// Validation failed.
    #[error("validation failed: {0}")]
    Validation(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The kind of error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config(_) | Error::Memory { .. } | Error::OtherRun { .. } | Error::OtherRank { .. } => {
                ErrorKind::Usage
            }
            Error::Gone { .. } => ErrorKind::Io,
            Error::Internal(_) => ErrorKind::Internal,
            Error::NotFinite { .. } | Error::BadValue { .. } | Error::Validation(_) => ErrorKind::Other,
            Error::Data(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Optim(source) => source.kind(),
            Error::Weights(source) => source.kind(),
            Error::Tensor(source) => source.kind(),
            Error::File(source) => source.kind(),
        }
    }
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
