//! Checkpoints: directories with weights, velocities and the state of the run, hashed and renamed into place.

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

/// Where a run stands, as a checkpoint holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// What determines the run.
    pub(crate) identity: serde_json::Value,
    /// Epochs done.
    pub(crate) epochs: usize,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    /// Progress of the epoch after them.
    pub(crate) part: EpochProgress,
    /// In a file of its own, so that those of the state are the same whenever and wherever a run is made.
    #[serde(skip)]
    pub(crate) timing: Timing,
}

/// What was done of an epoch, by all ranks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochProgress {
    /// Batches done.
    pub(crate) batches: usize,
    /// What each rank has done of them; none between epochs.
    shares: Vec<RankProgress>,
}

/// What a rank has done of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RankProgress {
    pub(crate) sums: StepSums,
    /// Images that were left out.
    pub(crate) skipped: usize,
}

impl EpochProgress {
    /// Of batches of which this rank has done `own`. All ranks must call this.
    pub(crate) fn all_gather(
        batches: usize,
        own: RankProgress,
        group: &dyn ProcessGroup,
    ) -> Result<EpochProgress> {
        let RankProgress { sums: StepSums { loss, wrong, n }, skipped } = own;
        let all = group.all_gather(&[loss, wrong as f64, n as f64, skipped as f64])?;
        let (rows, _) = all.as_chunks();
        let share = |[loss, wrong, n, skipped]: &[f64; 4]| RankProgress {
            sums: StepSums { loss: *loss, wrong: *wrong as usize, n: *n as usize },
            skipped: *skipped as usize,
        };
        Ok(EpochProgress { batches, shares: rows.iter().map(share).collect() })
    }

    /// What all have done together, added up in the order of ranks.
    pub(crate) fn total(&self) -> RankProgress {
        let mut total = RankProgress::default();
        for share in &self.shares {
            total.sums.add(share.sums);
            total.skipped += share.skipped;
        }
        total
    }

    /// What a rank resumes with: its own share, or, where there were more ranks or fewer, the first with all of them.
    pub(crate) fn of_rank(&self, group: &dyn ProcessGroup) -> RankProgress {
        match group.rank() {
            rank if self.shares.len() == group.size() => self.shares[rank],
            0 => self.total(),
            _ => RankProgress::default(),
        }
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

/// Makes the folder that all checkpoints of a run will be in.
pub(crate) fn make_folder(dir: &Path) -> Result<()> {
    Ok(vgg_files::create_directory(&folder(dir))?)
}

/// Writes something of a run if that folder is still there. What was removed under a run, or is on a disk that is gone, is not made
/// anew: another run may be there, or nothing that lasts.
///
/// # Errors
/// [`Error::Gone`], also if it goes meanwhile; those of `write`.
pub(crate) fn in_its_place<T>(dir: &Path, write: impl FnOnce() -> Result<T>) -> Result<T> {
    let there = || if folder(dir).is_dir() { Ok(()) } else { Err(Error::Gone { path: dir.to_owned() }) };
    there()?;
    write().map_err(|error| there().err().unwrap_or(error))
}

/// Removes all checkpoints but the newest, and the one after the epoch of the smallest validation error.
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
/// [`crate::Error::File`] if that cannot be told.
pub fn has_checkpoints(dir: &Path) -> Result<bool> {
    Ok(!list(dir)?.is_empty())
}

/// Removes every checkpoint of a run directory, for whom a finished run is of no further use.
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
