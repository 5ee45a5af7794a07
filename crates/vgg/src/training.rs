//! One training run in this process.

use std::path::Path;
use std::sync::Arc;

use vgg_experiment::{Dataset, FinishedRun, PreparedRun, RunContext, RunEvent, RunPlan};
use vgg_tensor::{Device, SingleProcess};
use vgg_train::{Checkpoints, Resume};

use crate::{Error, Result, system};

/// Trains a network in the directory `out`, or resumes a run that is there; a finished one is not trained again.
///
/// The directory gets `weights.safetensors`, metrics and checkpoints. `events` hears what happens.
///
/// # Errors
/// [`Error::Config`] if neither `dataset` nor the plan names a data set; [`Error::Experiment`] if the plan does not fit the data set,
/// the directory holds another run, or training fails.
pub fn train(
    plan: &RunPlan,
    dataset: Option<&Path>,
    out: &Path,
    device: &Device,
    events: &mut dyn FnMut(RunEvent),
) -> Result<FinishedRun> {
    let missing = || Error::Config("the settings name no data set (data.dataset)".into());
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
