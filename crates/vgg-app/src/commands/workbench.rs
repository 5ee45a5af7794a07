//! What training needs, opened in the order in which things can go wrong: device, data set, settings, statistics.

use std::path::Path;

use anyhow::Result;
use vgg_data::PixelStatistics;
use vgg_experiment::{Context, Dataset, RunPlan};
use vgg_tensor::Device;
use vgg_train::step_memory_bytes;

use super::options::{DeviceOptions, free_memory_bytes, open_dataset, say_misnamed, workers};
use crate::console::{Interrupt, Progress};

/// A device, a data set with the statistics of its pixels, and an ear for signals.
pub(super) struct Workbench {
    device: Device,
    dataset: Dataset,
    statistics: PixelStatistics,
    interrupt: Interrupt,
}

impl Workbench {
    /// Opens everything for `plans`; nothing is written to `out` before the plans are known to fit the data set.
    pub(super) fn open<'a>(
        device: &DeviceOptions,
        dataset: impl FnOnce() -> Result<std::path::PathBuf>,
        plans: impl Iterator<Item = &'a RunPlan>,
        out: &Path,
    ) -> Result<Workbench> {
        let device = device.open()?;
        let dataset = open_dataset(&dataset()?)?;
        let mut memory_bytes = 0;
        for plan in plans {
            let spec = plan.network.spec(dataset.train.classes().len())?;
            plan.check_start()?;
            let layers = plan.train_layers.as_deref();
            memory_bytes =
                step_memory_bytes(&spec, layers, &plan.train, plan.batch, &device)?.max(memory_bytes);
        }
        say_memory(memory_bytes);
        let of = dataset.train.len();
        let mut progress = Progress::new("pixel statistics", of as u64);
        let mut seen = |done: usize| progress.at(done as u64, || format!("{done} of {of} images"));
        let statistics = dataset.statistics(out, workers(), &mut seen)?;
        drop(progress);
        // From here on there is something to save; until here, a signal may simply end the program.
        let interrupt = Interrupt::listen()?;
        Ok(Workbench { device, dataset, statistics, interrupt })
    }

    /// Works with what was opened, and says which images were not what their names claim.
    pub(super) fn work<R>(&self, f: impl FnOnce(&Context) -> Result<R>) -> Result<R> {
        let result = f(&Context {
            device: &self.device,
            dataset: &self.dataset,
            statistics: &self.statistics,
            workers: workers(),
            interrupted: &|| self.interrupt.asked(),
        });
        [&self.dataset.train, &self.dataset.val].into_iter().for_each(|folder| say_misnamed(folder));
        result
    }

    /// The exit code after a signal.
    pub(super) fn interrupted(&self, message: &str) -> std::process::ExitCode {
        eprintln!("{message}");
        self.interrupt.exit_code().into()
    }
}

/// Says how much memory training will need besides the images, and whether there is as much.
fn say_memory(bytes: usize) {
    let gib = |bytes: f64| bytes / (1u64 << 30) as f64;
    let free = free_memory_bytes() as f64;
    eprintln!("memory: a training step needs about {:.2} GiB", gib(bytes as f64));
    if bytes as f64 > free {
        eprintln!("memory: only {:.2} GiB are free; a smaller micro_batch needs less", gib(free));
    }
}
