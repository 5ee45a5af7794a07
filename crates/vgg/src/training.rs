//! One training run in this process.

use std::path::Path;
use std::sync::Arc;

use vgg_experiment::{Dataset, FinishedRun, PreparedRun, RunContext, RunEvent, RunPlan};
use vgg_tensor::{Device, SingleProcess};
use vgg_train::{Checkpoints, Resume};

use crate::{Error, Result, system};

/// Trains a network in the directory `out`, or resumes the run there. A finished run is not trained again.
///
/// Writes `weights.safetensors`, metrics and checkpoints. `events` receives the progress.
///
/// # Errors
/// [`Error::Config`] if neither `dataset` nor the plan gives a data set; [`Error::Experiment`] if the plan
/// does not fit the data set, the directory holds another run, or training fails.
pub fn train(
    plan: &RunPlan,
    dataset: Option<&Path>,
    out: &Path,
    device: &Device,
    events: &mut dyn FnMut(RunEvent),
) -> Result<FinishedRun> {
    let missing = || Error::Config("no data set is given, and the settings have no data.dataset".into());
    let root = dataset.or(plan.data.dataset.as_deref()).ok_or_else(missing)?;
    let dataset = Dataset::open(root, system::free_memory_bytes() / 4)?;
    let workers = system::cores();
    let statistics = dataset.statistics(out, workers, &SingleProcess, &mut |_| ())?;
    let context = RunContext {
        device,
        dataset: &dataset,
        statistics: &statistics,
        workers,
        group: Arc::new(SingleProcess),
        checkpoints: Checkpoints::default(),
        allow_changes: &[],
        interrupted: &|| false,
    };
    let run = PreparedRun::new(plan, None, &context)?;
    run.train(out, Resume::Auto, &context, events)?.ok_or(Error::Interrupted)
}
