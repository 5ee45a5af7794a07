//! What a training run is given, and what it tells.

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

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Images that go through the network together; a mini-batch is split into such parts.
    pub micro_batch: usize,
    /// The optimiser.
    pub sgd: SgdOptions,
    /// The learning rate.
    pub schedule: Schedule,
    /// Epochs at most.
    pub max_epochs: usize,
    /// Epochs between validations; the last is always validated.
    pub validate_every: usize,
    /// Seed of dropout.
    pub seed: u64,
}

impl TrainConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Optim`] if one makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.micro_batch == 0 || self.max_epochs == 0 || self.validate_every == 0 {
            let what = "micro_batch, max_epochs and every_epochs of validation must be at least 1";
            return Err(Error::Config(what.into()));
        }
        Sgd::new(self.sgd)?;
        Ok(self.schedule.check()?)
    }
}

/// Whether a run in a directory that has checkpoints continues them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// From the newest checkpoint, if there is one.
    Auto,
    /// Start over; checkpoints that are there are removed.
    Never,
}

/// What a validation comes to; any error ends the run.
/// Nothing, if the run was asked to stop meanwhile.
pub type ValidationResult = std::result::Result<Option<Validation>, Box<dyn std::error::Error + Send + Sync>>;

/// Everything a run needs.
pub struct Training<'a> {
    /// The network, initialised.
    pub network: &'a mut Network,
    /// What its weights files will say.
    pub metadata: &'a WeightsMetadata,
    /// Its data.
    pub loader: &'a mut Loader,
    /// How to train.
    pub config: &'a TrainConfig,
    /// What determines the run; a checkpoint with another identity is not continued.
    pub identity: serde_json::Value,
    /// What may differ all the same: paths within it, such as `run.max_epochs`.
    pub allow_changes: &'a [String],
    /// The processes that train together, of which this is one. Each has its part of every batch, as its loader must know, and
    /// the first writes.
    pub group: Arc<dyn ProcessGroup>,
    /// Where to keep checkpoints and metrics, if at all. All ranks read there.
    pub dir: Option<&'a Path>,
    /// When checkpoints are made.
    pub checkpoints: Checkpoints,
    /// Whether to continue checkpoints.
    pub resume: Resume,
    /// Measures the network after an epoch.
    pub validate: &'a mut dyn FnMut(&Network) -> ValidationResult,
    /// Hears what happens.
    pub events: &'a mut dyn FnMut(Event),
    /// Asked before every step; when true, the run makes a checkpoint and stops.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A checkpoint was taken up.
    Resumed {
        /// Epochs already done.
        epochs: usize,
        /// Batches done of the one after them.
        batches: usize,
    },
    /// A checkpoint was damaged, and an older one is tried.
    Rejected(&'a str),
    /// A step was taken.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Steps done in the epoch.
        step: usize,
        /// Steps in the epoch.
        steps: usize,
        /// Mean loss of the epoch so far.
        loss: f64,
        /// Error of the epoch so far.
        top1_error: f64,
        /// Images of this step.
        images: usize,
        /// How long the step waited for its data.
        waited: Duration,
    },
    /// An image was left out.
    Skipped(&'a BadImage),
    /// An epoch was finished.
    Epoch {
        /// What it came to.
        metrics: &'a EpochMetrics,
        /// How long it took.
        timing: EpochTiming,
    },
    /// The loss is far above that of chance, in training as in validation.
    Diverges {
        /// The loss.
        loss: f64,
        /// That of chance: the logarithm of the number of classes.
        chance: f64,
    },
    /// The loss is where chance puts it.
    NoProgress {
        /// The loss.
        loss: f64,
        /// That of chance: the logarithm of the number of classes.
        chance: f64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What was written down of every epoch.
    pub metrics: Vec<EpochMetrics>,
    /// Whether it was interrupted before its end.
    pub interrupted: bool,
}
