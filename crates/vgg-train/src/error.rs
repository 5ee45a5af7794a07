//! What can go wrong in training.

use std::path::PathBuf;

use vgg_error::ErrorKind;

use crate::LayerNorms;

/// Result of training.
pub type Result<T> = std::result::Result<T, Error>;

/// A run that could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that make no sense.
    #[error("{0}")]
    Config(String),
    /// A bug in this crate.
    #[error("internal error: {0}")]
    Internal(String),
    /// A training step needs more memory than the device has free.
    #[error(
        "a training step with micro_batch = {micro_batch} needs {:.2} GiB, and the GPU has {:.2} GiB free; {}",
        gib(*needed_bytes), gib(*free_bytes),
        if *fitting > 0 { format!("micro_batch = {fitting} fits") } else { "not even one image fits".into() }
    )]
    Memory {
        /// Images that go through the network together.
        micro_batch: usize,
        /// Bytes that the step needs.
        needed_bytes: usize,
        /// Bytes that the device has free.
        free_bytes: usize,
        /// A micro-batch that would fit; 0 if none does.
        fitting: usize,
    },
    /// A loss or gradient was not finite. No weight was changed by it.
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
        /// Weights and gradients then.
        layers: Vec<LayerNorms>,
    },
    /// The run directory holds a run of something else.
    #[error(
        "{path} holds a run with other settings; give another directory, or remove it:\n  {differences}",
        path = path.display(), differences = differences.join("\n  ")
    )]
    OtherRun {
        /// The run directory.
        path: PathBuf,
        /// What differs: where, what it was and what it is.
        differences: Vec<String>,
    },
    /// The run directory is not there any more.
    #[error(
        "{path} was removed or is out of reach, so nothing of the run can be saved; what was saved before is where it was moved to, if \
         it was",
        path = path.display()
    )]
    Gone {
        /// The run directory.
        path: PathBuf,
    },
    /// This rank was started for something else than the first.
    #[error(
        "rank {rank} was started with other settings than the first; all must have the same:\n  {differences}",
        differences = differences.join("\n  ")
    )]
    OtherRank {
        /// Its number.
        rank: usize,
        /// What differs: where, what it is on the first rank and what on this one.
        differences: Vec<String>,
    },
    /// A weight or velocity is not finite, although no loss and no gradient was.
    #[error("{name} has a value that is not finite after step {step}; the checkpoint before is kept")]
    BadValue {
        /// Which one.
        name: String,
        /// Steps done.
        step: u64,
    },
    /// The data.
    #[error("{0}")]
    Data(#[from] vgg_data::Error),
    /// The network.
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
    /// The optimiser.
    #[error("{0}")]
    Optim(#[from] vgg_optim::Error),
    /// The weights.
    #[error("{0}")]
    Weights(#[from] vgg_weights::Error),
    /// An operation.
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
    /// A file.
    #[error("{0}")]
    File(#[from] vgg_files::Error),
    /// Validation failed.
    #[error("validation failed: {0}")]
    Validation(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The kind of error, such as for an exit code.
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
