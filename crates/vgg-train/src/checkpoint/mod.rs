//! Checkpoints: directories with weights, velocities and the state of the run, hashed and renamed into place.

mod load;
mod saver;
mod snapshot;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgg_optim::ScheduleState;
use vgg_tensor::RankGroup;

pub(crate) use load::load_newest;
pub(crate) use saver::Saver;
pub(crate) use snapshot::Snapshot;

use crate::{EpochMetrics, EpochTiming, Result, StepSums};

/// When checkpoints are made besides the one after every epoch, and which are kept. Without influence on any result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checkpoints {
    /// After so many steps.
    pub every_steps: Option<u64>,
    /// After so much time.
    pub every: Option<Duration>,
    /// How many of the newest are kept, besides the best.
    pub keep: usize,
}

impl Default for Checkpoints {
    /// Every ten minutes; the newest two are kept.
    fn default() -> Checkpoints {
        Checkpoints { every_steps: None, every: Some(Duration::from_secs(600)), keep: 2 }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// What determines the run.
    pub(crate) identity: serde_json::Value,
    /// Epochs done.
    pub(crate) epochs: usize,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    /// What is done of the epoch after them.
    pub(crate) part: EpochPart,
    /// In a file of its own, so that those of the state are the same whenever and wherever a run is made.
    #[serde(skip)]
    pub(crate) timing: Timing,
}

/// How long it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// The epochs done.
    pub(crate) epochs: Vec<EpochTiming>,
    /// What is done of the one after them, in seconds.
    pub(crate) part: f64,
    /// How much of that it waited for data.
    pub(crate) part_waited: f64,
}

/// A part of an epoch, from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochPart {
    /// Batches done.
    pub(crate) batches: usize,
    pub(crate) sums: StepSums,
    /// Images that were left out.
    pub(crate) skipped: usize,
}

impl EpochPart {
    /// What all ranks have done together.
    pub(crate) fn of_all(&self, group: &dyn RankGroup) -> Result<EpochPart> {
        let StepSums { loss, wrong, n } = self.sums;
        let mine = [loss, wrong as f64, n as f64, self.skipped as f64];
        let all = group.gather(&mine)?;
        let sum = |what: usize| all.iter().skip(what).step_by(mine.len()).sum::<f64>();
        let sums = StepSums { loss: sum(0), wrong: sum(1) as usize, n: sum(2) as usize };
        Ok(EpochPart { sums, skipped: sum(3) as usize, ..self.clone() })
    }

    /// What a rank goes on with: the first with all that was done, the others with nothing besides.
    pub(crate) fn for_rank(self, group: &dyn RankGroup) -> EpochPart {
        if group.rank() == 0 { self } else { EpochPart { sums: StepSums::default(), skipped: 0, ..self } }
    }
}

/// Folder of the checkpoints of a run.
fn folder(dir: &Path) -> PathBuf {
    dir.join("checkpoints")
}

/// Where the checkpoint after a step is.
fn path_of(dir: &Path, step: u64) -> PathBuf {
    folder(dir).join(format!("step-{step:08}"))
}

/// Checkpoints in order of their steps.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let checkpoints = folder(dir);
    let entries = match std::fs::read_dir(&checkpoints) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("read", &checkpoints, e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| io("read", &checkpoints, e))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse::<u64>().ok());
        found.extend(step.map(|step| (step, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Removes all checkpoints but the newest, and the one after the epoch of the smallest validation error.
fn prune(dir: &Path, state: &RunState, keep: usize) -> Result<()> {
    let measured = state.metrics.iter().filter_map(|m| Some((m.val_top1_error?, m.step)));
    let best = measured.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step);
    for (step, old) in list(dir)?.into_iter().rev().skip(keep.max(1)) {
        if Some(step) != best {
            std::fs::remove_dir_all(&old).map_err(|e| io("remove", &old, e))?;
        }
    }
    Ok(())
}

/// Removes every checkpoint of a run directory: of no further use once the run is finished.
///
/// # Errors
/// [`crate::Error::File`] if they cannot be removed.
pub fn remove_checkpoints(dir: &Path) -> Result<()> {
    let path = folder(dir);
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io("remove", &path, e).into()),
        _ => Ok(()),
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> vgg_files::Error {
    vgg_files::Error::Io { action, path: path.to_owned(), source }
}
