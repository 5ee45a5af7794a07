//! Setup of training, in the order in which it can fail: device, data set, settings, pixel statistics.

use std::path::Path;

use anyhow::Result;
use vgg::system::free_memory_bytes;
use vgg_data::PixelStatistics;
use vgg_experiment::{Dataset, RunContext, RunPlan};
use vgg_tensor::Device;
use vgg_train::check_step_memory;

use super::data_options::{TrainDataOptions, open_dataset, say_misnamed};
use super::options::DeviceOptions;
use super::ranks::Ranks;
use super::saving::SavingOptions;
use crate::console::{Interrupt, Progress, note};
use crate::exit::UsageError;

pub(super) struct TrainSession<'r> {
    device: Device,
    dataset: Dataset,
    statistics: PixelStatistics,
    workers: usize,
    ranks: &'r Ranks,
    interrupt: Interrupt,
}

impl<'r> TrainSession<'r> {
    /// Opens everything for `plans`. Writes nothing to `out` until the plans fit the data set.
    pub(super) fn open(
        ranks: &'r Ranks,
        device: &DeviceOptions,
        data: &TrainDataOptions,
        dataset: impl FnOnce() -> Result<std::path::PathBuf>,
        plans: &[RunPlan],
        out: &Path,
    ) -> Result<TrainSession<'r>> {
        let workers = device.workers_among(ranks);
        let device = device.open_among(ranks)?;
        let dataset = open_dataset(&dataset()?, data, plans, ranks)?;
        let mut memory_bytes = 0;
        for plan in plans {
            let spec = plan.spec(dataset.train.classes().len())?;
            let layers = plan.network.train_layers.as_deref();
            let (config, batch) = (plan.train_config(), plan.optimizer.batch);
            memory_bytes = check_step_memory(&spec, layers, &config, batch, &device)?.max(memory_bytes);
        }
        note(&format!("memory: a training step needs about {}", size_text(memory_bytes)));
        if device.free_memory_bytes()?.is_none() {
            check_host_memory(memory_bytes, ranks.local().1)?;
        }
        let of = dataset.train.len();
        let mut progress = Progress::new("pixel statistics", of as u64);
        let mut seen = |done: usize| progress.at(done as u64, || format!("{done} of {of} images"));
        let statistics = dataset.statistics(out, workers, &**ranks.group(), &mut seen)?;
        drop(progress);
        // From here on, a signal saves a checkpoint; before, it simply ends the process.
        let interrupt = Interrupt::listen()?;
        Ok(TrainSession { device, dataset, statistics, workers, ranks, interrupt })
    }

    /// Runs `f`, then lists the images whose format differs from their extension.
    pub(super) fn work<R>(
        &self,
        saving: &SavingOptions,
        f: impl FnOnce(&RunContext) -> Result<R>,
    ) -> Result<R> {
        let done = f(&RunContext {
            device: &self.device,
            dataset: &self.dataset,
            statistics: &self.statistics,
            workers: self.workers,
            checkpoints: saving.checkpoints()?,
            allow_changes: saving.allow_changes(),
            group: self.ranks.group().clone(),
            interrupted: &|| self.interrupt.asked(),
        });
        [&self.dataset.train, &self.dataset.val].into_iter().for_each(|image_set| say_misnamed(image_set));
        done
    }

    pub(super) fn interrupted(&self, message: &str) -> Result<std::process::ExitCode> {
        self.ranks.interrupted(&self.interrupt, message)
    }
}

/// Warns if local ranks need more memory than is free, and refuses what surely does not fit: twice as much, as the
/// estimate leaves out swap space.
fn check_host_memory(step_bytes: usize, local_ranks: usize) -> Result<()> {
    let (needed, free) = (step_bytes.saturating_mul(local_ranks), free_memory_bytes() as usize);
    let of_all = if local_ranks > 1 { format!(" for {local_ranks} ranks") } else { String::new() };
    if needed > free.saturating_mul(2) {
        let what = format!(
            "a training step needs about {}{of_all}, but {} are free; reduce network.head or optimizer.micro_batch",
            size_text(needed),
            size_text(free)
        );
        return Err(UsageError(what).into());
    }
    if needed > free {
        note(&format!("memory: {} are free{of_all}; reduce micro_batch", size_text(free)));
    }
    Ok(())
}

fn size_text(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
