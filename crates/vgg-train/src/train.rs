//! The training loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgg_data::{BadImage, Loader};
use vgg_layers::Network;
use vgg_optim::{Schedule, ScheduleState, Sgd, SgdOptions};
use vgg_tensor::RankGroup;
use vgg_weights::WeightsMetadata;

use crate::checkpoint::{
    EpochPart, RunState, Saver, Snapshot, Timing, in_its_place, load_newest, make_folder, prune,
    remove_checkpoints,
};
use crate::epoch::take_epoch;
use crate::exchange::Exchange;
use crate::identity::refuse_other_ranks;
use crate::{
    Checkpoints, EpochMetrics, EpochTiming, Error, NOT_FINITE_FILE, Result, Validation, WEIGHTS_FILE, metrics,
};

/// Checkpoints that room is looked for before the start, at most.
const MANY: usize = 10;

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
    pub may_differ: &'a [String],
    /// The processes that train together, of which this is one. Each has its part of every batch, as its loader must know, and
    /// the first writes.
    pub group: Arc<dyn RankGroup>,
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
    DeadStart {
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

/// Trains a network. Interrupted, or killed, at any step and resumed, a run comes to the same bits as an uninterrupted one.
///
/// # Errors
/// [`Error::NotFinite`] before a bad value reaches a weight; [`Error::OtherRun`] if the directory holds something else;
/// and those of data, network and files.
pub fn train(mut t: Training) -> Result<Outcome> {
    let config = t.config;
    config.check()?;
    let mut sgd = Sgd::new(config.sgd)?;
    let mut state = start(&mut t, &mut sgd)?;
    if let Some(dir) = writes(&t) {
        // Of each value 4 bytes, and as many of its velocity, in the checkpoints that are kept, the best, and the one that is being
        // written; and the weights at the end. Who keeps very many may mean all there will be, which nobody knows yet.
        let values: usize = t.network.parameters().map(|p| p.weight.shape().len()).sum();
        vgg_files::probe(dir, (8 * (t.checkpoints.keep.min(MANY) as u64 + 2) + 4) * values as u64)?;
        make_folder(dir)?;
    }
    let mut saver = writes(&t).map(|dir| Saver::new(dir, t.metadata, t.checkpoints.keep)).transpose()?;
    let mut exchange = Exchange::join(&t.group, t.network)?;
    while state.epochs < config.max_epochs && !state.schedule.stop {
        let whole = take_epoch(&mut t, (&mut sgd, &mut state), &mut exchange, saver.as_mut());
        let whole = whole.inspect_err(|error| note_not_finite(writes(&t), error))?;
        if let (Some(dir), Some(saver)) = (writes(&t), &mut saver) {
            if whole {
                saver.save(Snapshot::take(t.network, &sgd, state.clone()))?;
            }
            in_its_place(dir, || metrics::write(dir, &state.metrics, &state.timing.epochs))?;
        }
        if !whole {
            saver.as_mut().map_or(Ok(()), Saver::wait)?;
            return Ok(Outcome { metrics: state.metrics, interrupted: true });
        }
    }
    saver.as_mut().map_or(Ok(()), Saver::wait)?;
    if let Some(dir) = writes(&t) {
        in_its_place(dir, || {
            // Once more: the run may have been killed between its last checkpoint and these files.
            metrics::write(dir, &state.metrics, &state.timing.epochs)?;
            vgg_weights::save(&dir.join(WEIGHTS_FILE), t.network, t.metadata)?;
            // The last one and the best stay, for whoever wants to go on.
            prune(dir, &state, 1)
        })?;
    }
    Ok(Outcome { metrics: state.metrics, interrupted: false })
}

/// Where this rank writes, if it is the one that does.
fn writes<'a>(t: &Training<'a>) -> Option<&'a Path> {
    t.dir.filter(|_| t.group.rank() == 0)
}

fn start(t: &mut Training, sgd: &mut Sgd) -> Result<RunState> {
    refuse_other_ranks(&t.identity, &*t.group)?;
    if t.group.rank() != 0 {
        // What is damaged is set aside first, and what is not whole removed.
        t.group.barrier()?;
    }
    let state = find(t, sgd)?;
    if t.group.rank() == 0 {
        t.group.barrier()?;
    }
    // All must stand at the same place.
    let steps = t.group.gather(&[state.step as f64])?;
    if steps.iter().any(|step| *step != steps[0]) {
        let steps: Vec<u64> = steps.iter().map(|step| *step as u64).collect();
        return Err(Error::Config(format!(
            "the ranks found checkpoints of steps {steps:?}: is the directory shared?"
        )));
    }
    let part = state.part.for_rank(&*t.group);
    Ok(RunState { part, ..state })
}

/// The state that the newest checkpoint left, or that of the beginning.
fn find(t: &mut Training, sgd: &mut Sgd) -> Result<RunState> {
    if let (Some(dir), Resume::Never) = (writes(t), t.resume) {
        remove_checkpoints(dir)?;
    }
    if let Some(dir) = writes(t) {
        // Of an attempt that was killed.
        vgg_files::remove_partial_files(dir)?;
    }
    if let (Some(dir), Resume::Auto) = (t.dir, t.resume) {
        let (found, rejected) =
            load_newest((dir, t.group.rank() == 0), &t.identity, t.may_differ, t.network, sgd)?;
        rejected.iter().for_each(|why| (t.events)(Event::Rejected(why)));
        if let Some(state) = found {
            (t.events)(Event::Resumed { epochs: state.epochs, batches: state.part.batches });
            return Ok(state);
        }
    }
    Ok(RunState {
        identity: t.identity.clone(),
        epochs: 0,
        step: 0,
        schedule: ScheduleState::default(),
        metrics: Vec::new(),
        part: EpochPart::default(),
        timing: Timing::default(),
    })
}

/// Writes down what is known of a step that was not finite. The error says the most important of it, should that fail.
fn note_not_finite(dir: Option<&Path>, error: &Error) {
    if let (Some(dir), Error::NotFinite { epoch, step, samples, layers }) = (dir, error) {
        let what = serde_json::json!({ "epoch": epoch, "step": step, "samples": samples, "layers": layers });
        let _ = vgg_files::write_json(&dir.join(NOT_FINITE_FILE), &what);
    }
}
