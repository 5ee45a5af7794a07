//! Where a run stands, on one rank.

use vgg_optim::ScheduleState;
use vgg_tensor::ProcessGroup;

use crate::checkpoint::{EpochProgress, RankProgress, SavedState, Timing};
use crate::{EpochMetrics, Result};

/// Where a run stands, on this rank.
#[derive(Debug, Clone)]
pub(crate) struct RunState {
    /// What determines the run.
    pub(crate) identity: serde_json::Value,
    /// Epochs done.
    pub(crate) epochs: usize,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    /// Batches done of the epoch after them.
    pub(crate) batches: usize,
    /// What this rank has done of those.
    pub(crate) own: RankProgress,
    pub(crate) timing: Timing,
}

impl RunState {
    /// The beginning of a run.
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

    /// Where a checkpoint left this rank.
    pub(crate) fn resumed(saved: SavedState, group: &dyn ProcessGroup) -> RunState {
        RunState {
            batches: saved.part.batches,
            own: saved.part.of_rank(group),
            identity: saved.identity,
            epochs: saved.epochs,
            step: saved.step,
            schedule: saved.schedule,
            metrics: saved.metrics,
            timing: saved.timing,
        }
    }

    /// As a checkpoint within an epoch holds it, with what all ranks have done of the epoch. All ranks must call this.
    pub(crate) fn all_gather(&self, group: &dyn ProcessGroup) -> Result<SavedState> {
        Ok(self.saved(EpochProgress::all_gather(self.batches, self.own, group)?))
    }

    /// As a checkpoint between epochs holds it.
    pub(crate) fn between_epochs(&self) -> SavedState {
        self.saved(EpochProgress::default())
    }

    /// With this progress of the epoch.
    pub(crate) fn saved(&self, part: EpochProgress) -> SavedState {
        SavedState {
            identity: self.identity.clone(),
            epochs: self.epochs,
            step: self.step,
            schedule: self.schedule.clone(),
            metrics: self.metrics.clone(),
            part,
            timing: self.timing.clone(),
        }
    }
}
