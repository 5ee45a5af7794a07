//! The training loop.

use std::mem::take;
use std::path::Path;
use std::time::Duration;

use vgg_data::Batch;
use vgg_optim::Sgd;

use crate::checkpoint::{
    EpochProgress, Saver, Snapshot, in_its_place, load_newest, make_folder, prune, remove_checkpoints,
};
use crate::epoch::{CheckpointSchedule, Epoch};
use crate::gradient_reducer::GradientReducer;
use crate::identity::refuse_other_ranks;
use crate::run_state::RunState;
use crate::{
    EpochMetrics, EpochTiming, Error, Event, NOT_FINITE_FILE, Outcome, Result, Resume, StepConfig, TrainStep,
    Training, Validation, WEIGHTS_FILE, metrics,
};

/// Maximum number of checkpoints for which free disk space is checked before the start.
const MAX_PROBED_CHECKPOINTS: usize = 10;
/// A loss that exceeds the loss at chance by this factor counts as divergence.
const DIVERGED: f64 = 2.0;

/// Trains a network. A run that is interrupted or killed at any step and resumed produces bitwise identical
/// weights to an uninterrupted run.
pub struct Trainer<'a> {
    training: Training<'a>,
    optimizer: Sgd,
    step: TrainStep,
    state: RunState,
    saver: Option<Saver>,
}

impl<'a> Trainer<'a> {
    /// Prepares a run, or resumes it from its newest valid checkpoint.
    ///
    /// # Errors
    /// - [`Error::OtherRun`] if the directory contains a run with other settings.
    /// - [`Error::OtherRank`] if this rank has other settings than rank 0.
    /// - [`Error::Config`] or [`Error::Optim`] if a setting is invalid or ranks loaded different checkpoints.
    /// - [`Error::File`] if a file operation fails or disk space is insufficient.
    pub fn new(mut training: Training<'a>) -> Result<Trainer<'a>> {
        let config = training.config;
        config.check()?;
        let mut optimizer = Sgd::new(config.sgd)?;
        let state = start(&mut training, &mut optimizer)?;
        let saver = match writes(&training) {
            Some(dir) => {
                // A checkpoint has 4 bytes per weight and 4 per velocity. On disk are the `keep` newest, the
                // best, the one being written, and the final weights. A very large `keep` may mean all, so
                // the number is limited.
                let values: usize = training.network.parameters().map(|p| p.weight.shape().len()).sum();
                let kept = training.checkpoints.keep.min(MAX_PROBED_CHECKPOINTS) as u64;
                vgg_files::probe(dir, (8 * (kept + 2) + 4) * values as u64)?;
                make_folder(dir)?;
                Some(Saver::new(dir, training.metadata, training.checkpoints.keep)?)
            }
            None => None,
        };
        let (_, scale) = training.metadata.offset_and_scale();
        let step_config = StepConfig { scale, micro_batch: config.micro_batch, seed: config.seed };
        let reducer = GradientReducer::new(&training.group, training.network)?;
        let step = TrainStep::new(training.network.device(), step_config)?.reducing(reducer);
        Ok(Trainer { training, optimizer, step, state, saver })
    }

    /// Trains to the end, or until the run is interrupted.
    ///
    /// # Errors
    /// [`Error::NotFinite`] before such a value reaches a weight; the errors of data, network and files.
    pub fn run(mut self) -> Result<Outcome> {
        while !self.is_finished() {
            if !self.run_epoch()? {
                self.wait_for_saver()?;
                return Ok(Outcome { metrics: self.state.metrics, interrupted: true });
            }
        }
        self.wait_for_saver()?;
        if let Some(dir) = writes(&self.training) {
            in_its_place(dir, || {
                // Write metrics again: a killed run may have its last checkpoint, but not these files.
                metrics::write(dir, &self.state.metrics, &self.state.timing.epochs)?;
                vgg_weights::save(&dir.join(WEIGHTS_FILE), self.training.network, self.training.metadata)?;
                // Keep the newest and the best checkpoint, so that the run can be extended.
                prune(dir, &self.state.metrics, 1)
            })?;
        }
        Ok(Outcome { metrics: self.state.metrics, interrupted: false })
    }

    /// Trains for an epoch, or the rest of it, and validates if that is due; returns `false` if the run was
    /// interrupted, after saving a checkpoint.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn run_epoch(&mut self) -> Result<bool> {
        let whole = self.train_and_validate();
        let whole = whole.inspect_err(|error| note_not_finite(writes(&self.training), error))?;
        if let (Some(dir), Some(saver)) = (writes(&self.training), &mut self.saver) {
            if whole {
                let state = self.state.between_epochs();
                saver.save(Snapshot::take(self.training.network, &self.optimizer, state))?;
            }
            in_its_place(dir, || metrics::write(dir, &self.state.metrics, &self.state.timing.epochs))?;
        }
        Ok(whole)
    }

    /// Whether all epochs are done, or the schedule has ended the run.
    pub fn is_finished(&self) -> bool {
        self.state.epochs >= self.training.config.max_epochs || self.state.schedule.stop
    }

    /// Metrics of every completed epoch.
    pub fn metrics(&self) -> &[EpochMetrics] {
        &self.state.metrics
    }

    fn train_and_validate(&mut self) -> Result<bool> {
        let config = self.training.config;
        let lr = config.schedule.lr(&self.state.schedule, self.state.epochs);
        if !self.take_steps(lr)? {
            return Ok(false);
        }
        let group = &*self.training.group;
        let progress = EpochProgress::all_gather(self.state.batches, self.state.own, group)?;
        if progress.total().sums.n == 0 {
            return Err(Error::Config("every image of the epoch was skipped".into()));
        }
        let epoch = self.state.epochs + 1;
        let due = epoch.is_multiple_of(config.validate_every) || epoch == config.max_epochs;
        let validate = &mut self.training.validate;
        let validation = if due { validate(self.training.network).map_err(Error::Validation)? } else { None };
        if due && validation.is_none() {
            // All steps are done, so the resumed run starts with the validation.
            if let Some(saver) = &mut self.saver {
                let state = self.state.saved(progress);
                saver.save(Snapshot::take(self.training.network, &self.optimizer, state))?;
            }
            return Ok(false);
        }
        self.record(&progress, validation, lr);
        Ok(true)
    }

    /// Runs the remaining steps of the epoch; returns `false` if interrupted, after saving a checkpoint.
    fn take_steps(&mut self, lr: f64) -> Result<bool> {
        let t = &mut self.training;
        let number = self.state.epochs as u64;
        let first = self.state.batches;
        let batches = t.loader.epoch_order(number).batches();
        let interrupted = t.interrupted;
        self.step.set_lr(lr);
        let step_before = self.state.step;
        let mut epoch = Epoch::new(
            t.network,
            &mut self.optimizer,
            &mut self.step,
            &mut self.state,
            t.events,
            t.group.clone(),
            batches,
        );
        let policy = t.checkpoints;
        epoch.checkpoints =
            self.saver.as_mut().map(|saver| CheckpointSchedule::new(saver, policy, step_before));
        t.loader.for_each(number, first, |batch: &Batch, waited: Duration| -> Result<bool> {
            epoch.run_step(batch, waited, interrupted())
        })?;
        epoch.end()
    }

    /// Updates the schedule, and records and reports the epoch's metrics.
    fn record(&mut self, progress: &EpochProgress, validation: Option<Validation>, lr: f64) {
        let config = self.training.config;
        let total = progress.total();
        let state = &mut self.state;
        state.batches = 0;
        state.own = Default::default();
        state.epochs += 1;
        if let Some(v) = validation {
            let since = (state.epochs - 1) % config.validate_every + 1;
            config.schedule.after_validation(&mut state.schedule, v.top1_error, since);
        }
        let seconds = take(&mut state.timing.current_epoch);
        let waited = take(&mut state.timing.current_epoch_waited);
        let timing = EpochTiming {
            epoch: state.epochs,
            seconds,
            images_per_s: total.sums.n as f64 / seconds,
            waiting: waited / seconds,
        };
        let (train_loss, train_top1_error) = total.sums.means();
        let metrics = EpochMetrics {
            epoch: state.epochs,
            step: state.step,
            lr,
            train_loss,
            train_top1_error,
            val_top1_error: validation.map(|v| v.top1_error),
            val_top5_error: validation.map(|v| v.top5_error),
            val_loss: validation.map(|v| v.loss),
            skipped: total.skipped,
        };
        (self.training.events)(Event::Epoch { metrics: &metrics, timing });
        warn(&mut self.training, &metrics);
        self.state.metrics.push(metrics);
        self.state.timing.epochs.push(timing);
    }

    fn wait_for_saver(&mut self) -> Result<()> {
        self.saver.as_mut().map_or(Ok(()), Saver::wait)
    }
}

/// Reports divergence or missing progress.
fn warn(t: &mut Training, metrics: &EpochMetrics) {
    let chance = (t.network.spec().classes as f64).ln();
    // The training loss is a mean over the epoch, including its first steps; validation measures its end.
    let loss = metrics.val_loss.unwrap_or(metrics.train_loss);
    // A large validation loss alone may be overfitting.
    if loss.min(metrics.train_loss) > DIVERGED * chance {
        (t.events)(Event::Diverges { loss, chance });
    }
    if metrics.epoch == 1 && (loss - chance).abs() < 0.01 * chance {
        (t.events)(Event::NoProgress { loss, chance });
    }
}

/// The run directory, if this rank writes to it: only rank 0 does.
fn writes<'a>(t: &Training<'a>) -> Option<&'a Path> {
    t.dir.filter(|_| t.group.rank() == 0)
}

/// Loads the state from the newest valid checkpoint, or creates the state of a new run.
fn start(t: &mut Training, optimizer: &mut Sgd) -> Result<RunState> {
    refuse_other_ranks(&t.identity, &*t.group)?;
    if t.group.rank() != 0 {
        // Rank 0 first sets damaged checkpoints aside and removes partial files.
        t.group.barrier()?;
    }
    let state = find(t, optimizer)?;
    if t.group.rank() == 0 {
        t.group.barrier()?;
    }
    // All ranks must be at the same step.
    let steps = t.group.all_gather(&[state.step as f64])?;
    if steps.iter().any(|step| *step != steps[0]) {
        let steps: Vec<u64> = steps.iter().map(|step| *step as u64).collect();
        return Err(Error::Config(format!(
            "the ranks loaded checkpoints of steps {steps:?}; all ranks need the same run directory"
        )));
    }
    Ok(state)
}

fn find(t: &mut Training, optimizer: &mut Sgd) -> Result<RunState> {
    if let (Some(dir), Resume::Never) = (writes(t), t.resume) {
        remove_checkpoints(dir)?;
    }
    if let Some(dir) = writes(t) {
        // Partial files of a run that was killed.
        vgg_files::remove_partial_files(dir)?;
    }
    if let (Some(dir), Resume::Auto) = (t.dir, t.resume) {
        let tidies = t.group.rank() == 0;
        let (found, rejected) = load_newest(dir, tidies, &t.identity, t.allow_changes, t.network, optimizer)?;
        rejected.iter().for_each(|why| (t.events)(Event::Rejected(why)));
        if let Some(saved) = found {
            (t.events)(Event::Resumed { epochs: saved.epochs, batches: saved.current_epoch.batches });
            return Ok(RunState::resumed(saved, &*t.group));
        }
    }
    Ok(RunState::new(t.identity.clone()))
}

/// Writes a file that describes a step that was not finite. Ignores write errors; the original error counts.
fn note_not_finite(dir: Option<&Path>, error: &Error) {
    if let (Some(dir), Error::NotFinite { epoch, step, samples, layers }) = (dir, error) {
        let what = serde_json::json!({ "epoch": epoch, "step": step, "samples": samples, "layers": layers });
        let _ = vgg_files::write_json(&dir.join(NOT_FINITE_FILE), &what);
    }
}
