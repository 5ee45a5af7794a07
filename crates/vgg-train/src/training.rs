//! Inputs, events and outcome of a training run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgg_data::{BadImage, Loader};
use vgg_layers::Network;
use vgg_optim::{Schedule, Sgd, SgdOptions};
use vgg_tensor::ProcessGroup;
use vgg_weights::WeightsMetadata;

use crate::{Checkpoints, EpochMetrics, EpochTiming, Error, Result, Validation};

/// Training settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Maximum images per micro-batch; gradients accumulate over the micro-batches of a batch.
    pub micro_batch: usize,
    /// Optimiser settings.
    pub sgd: SgdOptions,
    /// Learning rate schedule.
    pub schedule: Schedule,
    /// Maximum number of epochs.
    pub max_epochs: usize,
    /// Epochs between validations; the last epoch is always validated.
    pub validate_every: usize,
    /// Seed of dropout.
    pub seed: u64,
}

impl TrainConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Optim`] if a setting is invalid.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("micro_batch", self.micro_batch),
            ("max_epochs", self.max_epochs),
            ("every_epochs of the validation", self.validate_every),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::Config(format!("{name} is 0; it must be at least 1")));
        }
        Sgd::new(self.sgd)?;
        Ok(self.schedule.check()?)
    }
}

/// Whether a run resumes from the checkpoints in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Resume from the newest valid checkpoint, if there is one.
    Auto,
    /// Remove existing checkpoints and start over.
    Never,
}

/// Result of a validation: `None` if it was interrupted; an error ends the run.
pub type ValidationResult = std::result::Result<Option<Validation>, Box<dyn std::error::Error + Send + Sync>>;

/// Inputs of a run.
pub struct Training<'a> {
    /// The initialised network.
    pub network: &'a mut Network,
    /// Metadata for the weights files.
    pub metadata: &'a WeightsMetadata,
    /// Loader of this rank's training data.
    pub loader: &'a mut Loader,
    /// Training settings.
    pub config: &'a TrainConfig,
    /// All settings that determine the run; a run does not resume from a checkpoint with another identity.
    pub identity: serde_json::Value,
    /// Paths in the identity, such as `run.max_epochs`, that may differ from the checkpoint's.
    pub allow_changes: &'a [String],
    /// The process group. Each rank has its part of every batch, set in its loader; rank 0 writes files.
    pub group: Arc<dyn ProcessGroup>,
    /// Directory for checkpoints and metrics, if any. All ranks read it.
    pub dir: Option<&'a Path>,
    /// When to write checkpoints, and how many to keep.
    pub checkpoints: Checkpoints,
    /// Whether to resume from checkpoints.
    pub resume: Resume,
    /// Validates the network after an epoch.
    pub validate: &'a mut dyn FnMut(&Network) -> ValidationResult,
    /// Receives events.
    pub events: &'a mut dyn FnMut(Event),
    /// Called before every step; if true, the run saves a checkpoint and stops.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// An event in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run resumes from a checkpoint.
    Resumed {
        /// Completed epochs.
        epochs: usize,
        /// Completed batches of the epoch after them.
        batches: usize,
    },
    /// A checkpoint is damaged, for this reason; an older one is tried.
    Rejected(&'a str),
    /// A step is complete.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Step in the epoch, from 1.
        step: usize,
        /// Steps in the epoch.
        steps: usize,
        /// This rank's mean loss of the epoch so far.
        loss: f64,
        /// This rank's top-1 error of the epoch so far.
        top1_error: f64,
        /// This rank's images of this step.
        images: usize,
        /// Time that the step waited for its data.
        waited: Duration,
    },
    /// An image could not be decoded and was skipped.
    Skipped(&'a BadImage),
    /// An epoch is complete.
    Epoch {
        /// Its metrics.
        metrics: &'a EpochMetrics,
        /// Its timing.
        timing: EpochTiming,
    },
    /// Training and validation loss are more than twice the loss at chance.
    Diverges {
        /// The validation loss, or the training loss if the epoch was not validated.
        loss: f64,
        /// Loss at chance: the natural logarithm of the number of classes.
        chance: f64,
    },
    /// After the first epoch, the loss is within 1% of the loss at chance.
    NoProgress {
        /// The validation loss, or the training loss if the epoch was not validated.
        loss: f64,
        /// Loss at chance: the natural logarithm of the number of classes.
        chance: f64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Metrics of every completed epoch.
    pub metrics: Vec<EpochMetrics>,
    /// Whether the run was interrupted before its end.
    pub interrupted: bool,
}
