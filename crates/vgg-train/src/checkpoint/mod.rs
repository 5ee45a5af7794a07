//! Checkpoints: directories with weights, velocities and state of a run, hashed and renamed into place.

mod load;
mod saver;
mod snapshot;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgg_optim::ScheduleState;
use vgg_tensor::ProcessGroup;

pub(crate) use load::load_newest;
pub(crate) use saver::Saver;
pub(crate) use snapshot::Snapshot;

use crate::{EpochMetrics, EpochTiming, Error, Result, StepSums};

/// When to write checkpoints in addition to the one after every epoch, and how many to keep.
/// Does not affect results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checkpoints {
    /// Steps between checkpoints.
    pub every_steps: Option<u64>,
    /// Time between checkpoints.
    pub every: Option<Duration>,
    /// Number of newest checkpoints to keep, in addition to the best one.
    pub keep: usize,
}

impl Default for Checkpoints {
    /// Every ten minutes; the newest two are kept.
    fn default() -> Checkpoints {
        Checkpoints { every_steps: None, every: Some(Duration::from_secs(600)), keep: 2 }
    }
}

/// Timing of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// Completed epochs.
    pub(crate) epochs: Vec<EpochTiming>,
    /// Seconds of the current epoch.
    pub(crate) current_epoch: f64,
    /// Seconds of those in which training waited for data.
    pub(crate) current_epoch_waited: f64,
}

/// State of a run in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// All settings that determine the run.
    pub(crate) identity: serde_json::Value,
    /// Completed epochs.
    pub(crate) epochs: usize,
    /// Completed steps.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    /// Progress of the current epoch.
    pub(crate) current_epoch: EpochProgress,
    /// Stored in a separate file, so that `state.json` is the same whenever and wherever a run is made.
    #[serde(skip)]
    pub(crate) timing: Timing,
}

/// Progress of an epoch on all ranks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochProgress {
    /// Completed batches.
    pub(crate) batches: usize,
    /// Progress of each rank; empty between epochs.
    ranks: Vec<RankProgress>,
}

/// Progress of an epoch on one rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RankProgress {
    pub(crate) sums: StepSums,
    /// Images that were skipped.
    pub(crate) skipped: usize,
}

impl EpochProgress {
    /// All-gathers the progress of all ranks; `own` is this rank's. All ranks must call this.
    pub(crate) fn all_gather(
        batches: usize,
        own: RankProgress,
        group: &dyn ProcessGroup,
    ) -> Result<EpochProgress> {
        let RankProgress { sums: StepSums { loss, wrong, n }, skipped } = own;
        let all = group.all_gather(&[loss, wrong as f64, n as f64, skipped as f64])?;
        let (rows, _) = all.as_chunks();
        let progress = |[loss, wrong, n, skipped]: &[f64; 4]| RankProgress {
            sums: StepSums { loss: *loss, wrong: *wrong as usize, n: *n as usize },
            skipped: *skipped as usize,
        };
        Ok(EpochProgress { batches, ranks: rows.iter().map(progress).collect() })
    }

    /// Sum of all ranks' progress, in rank order.
    pub(crate) fn total(&self) -> RankProgress {
        let mut total = RankProgress::default();
        for rank in &self.ranks {
            total.sums.add(rank.sums);
            total.skipped += rank.skipped;
        }
        total
    }

    /// The progress that a rank resumes with: its own or, if the world size has changed, the total on rank 0.
    pub(crate) fn of_rank(&self, group: &dyn ProcessGroup) -> RankProgress {
        match group.rank() {
            rank if self.ranks.len() == group.size() => self.ranks[rank],
            0 => self.total(),
            _ => RankProgress::default(),
        }
    }
}

/// Directory of a run's checkpoints.
fn folder(dir: &Path) -> PathBuf {
    dir.join("checkpoints")
}

/// Path of the checkpoint after a step.
fn path_of(dir: &Path, step: u64) -> PathBuf {
    folder(dir).join(format!("step-{step:08}"))
}

/// Lists checkpoints in step order.
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

/// Creates the directory of a run's checkpoints.
pub(crate) fn make_folder(dir: &Path) -> Result<()> {
    Ok(vgg_files::create_directory(&folder(dir))?)
}

/// Calls `write` if the directory of checkpoints still exists. A directory that was removed, or whose disk is
/// gone, is not created again: another run may use the path, or the path may not be on a persistent disk.
///
/// # Errors
/// [`Error::Gone`] if the directory is missing, also after `write` has failed; the errors of `write`.
pub(crate) fn in_its_place<T>(dir: &Path, write: impl FnOnce() -> Result<T>) -> Result<T> {
    let there = || if folder(dir).is_dir() { Ok(()) } else { Err(Error::Gone { path: dir.to_owned() }) };
    there()?;
    write().map_err(|error| there().err().unwrap_or(error))
}

/// Removes all checkpoints but the `keep` newest (at least one) and the one with the lowest validation error.
pub(crate) fn prune(dir: &Path, metrics: &[EpochMetrics], keep: usize) -> Result<()> {
    let measured = metrics.iter().filter_map(|m| Some((m.val_top1_error?, m.step)));
    let best = measured.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step);
    for (step, old) in list(dir)?.into_iter().rev().skip(keep.max(1)) {
        if Some(step) != best {
            std::fs::remove_dir_all(&old).map_err(|e| io("remove", &old, e))?;
        }
    }
    Ok(())
}

/// Whether a run directory has a checkpoint.
///
/// # Errors
/// [`crate::Error::File`] if the directory of checkpoints cannot be read.
pub fn has_checkpoints(dir: &Path) -> Result<bool> {
    Ok(!list(dir)?.is_empty())
}

/// Removes every checkpoint of a run directory.
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
