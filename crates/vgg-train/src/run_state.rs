//! State of a run on one rank.

use vgg_optim::ScheduleState;
use vgg_tensor::ProcessGroup;

use crate::checkpoint::{EpochProgress, RankProgress, SavedState, Timing};
use crate::{EpochMetrics, Result};

/// State of a run on this rank; a checkpoint stores it as [`SavedState`].
#[derive(Debug, Clone)]
pub(crate) struct RunState {
    /// All settings that determine the run.
    pub(crate) identity: serde_json::Value,
    /// Completed epochs.
    pub(crate) epochs: usize,
    /// Completed steps.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    /// Completed batches of the current epoch.
    pub(crate) batches: usize,
    /// This rank's sums over those batches.
    pub(crate) own: RankProgress,
    pub(crate) timing: Timing,
}

impl RunState {
    /// The state before the first step.
    pub(crate) fn new(identity: serde_json::Value) -> RunState {
        RunState {
            identity,
            epochs: 0,
            step: 0,
            schedule: ScheduleState::default(),
            metrics: Vec::new(),
            batches: 0,
            own: RankProgress::default(),
            timing: Timing::default(),
        }
    }

    /// This rank's state from a checkpoint.
    pub(crate) fn resumed(saved: SavedState, group: &dyn ProcessGroup) -> RunState {
        RunState {
            batches: saved.current_epoch.batches,
            own: saved.current_epoch.of_rank(group),
            identity: saved.identity,
            epochs: saved.epochs,
            step: saved.step,
            schedule: saved.schedule,
            metrics: saved.metrics,
            timing: saved.timing,
        }
    }

    /// The state for a checkpoint within an epoch, with the progress of all ranks. All ranks must call this.
    pub(crate) fn all_gather(&self, group: &dyn ProcessGroup) -> Result<SavedState> {
        Ok(self.saved(EpochProgress::all_gather(self.batches, self.own, group)?))
    }

    /// The state for a checkpoint between epochs.
    pub(crate) fn between_epochs(&self) -> SavedState {
        self.saved(EpochProgress::default())
    }

    /// The state for a checkpoint with this progress of the epoch.
    pub(crate) fn saved(&self, current_epoch: EpochProgress) -> SavedState {
        SavedState {
            identity: self.identity.clone(),
            epochs: self.epochs,
            step: self.step,
            schedule: self.schedule.clone(),
            metrics: self.metrics.clone(),
            current_epoch,
            timing: self.timing.clone(),
        }
    }
}
