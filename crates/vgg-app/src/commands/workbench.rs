//! What training needs, opened in the order in which things can go wrong: device, data set, settings, statistics.

use std::path::Path;

use anyhow::Result;
use vgg_data::PixelStatistics;
use vgg_experiment::{Context, Dataset, RunPlan};
use vgg_tensor::Device;

use super::options::{DeviceOptions, open_dataset, say_misnamed, workers};
use crate::console::Interrupt;

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
        let interrupt = Interrupt::listen()?;
        let device = device.open()?;
        let dataset = open_dataset(&dataset()?)?;
        for plan in plans {
            plan.network.spec(dataset.train.classes().len())?;
        }
        let statistics = dataset.statistics(out, workers())?;
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
