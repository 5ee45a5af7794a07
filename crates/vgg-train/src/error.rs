//! What can go wrong in training.

use std::path::PathBuf;

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
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The optimiser.
    #[error(transparent)]
    Optim(#[from] vgg_optim::Error),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] vgg_weights::Error),
    /// An operation.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] vgg_files::Error),
    /// Validation failed.
    #[error("validation failed: {0}")]
    Validation(Box<dyn std::error::Error + Send + Sync>),
}
