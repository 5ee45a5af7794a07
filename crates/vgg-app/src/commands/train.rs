//! `vgg train`: one run from an experiment file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use vgg_experiment::{Context, PreparedRun};
use vgg_train::Resume;

use super::options::{DeviceOptions, open_dataset, say_misnamed, workers};
use crate::console::{Interrupt, TrainingView};
use crate::settings::{SettingsError, read_run};

#[derive(Args)]
pub(crate) struct Train {
    /// The experiment file.
    file: PathBuf,
    /// A value in the place of the file's, such as run.seed=2; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Data set, in the place of the file's data.dataset.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Directory of the run. Default: runs/ and the file's name.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Whether to go on where an earlier attempt in this directory stopped.
    #[arg(long, value_enum, default_value = "auto")]
    resume: ResumeOption,
    #[command(flatten)]
    device: DeviceOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum ResumeOption {
    Auto,
    Never,
}

impl Train {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let settings = read_run(&self.file, &self.set)?;
        let dir = self.out.unwrap_or_else(|| PathBuf::from("runs").join(&settings.plan.name));
        let resume = match self.resume {
            ResumeOption::Auto => Resume::Auto,
            ResumeOption::Never => Resume::Never,
        };
        if resume == Resume::Never && dir.join("run.json").exists() {
            let what = format!("{} holds a run already; give another --out, or remove it", dir.display());
            return Err(SettingsError(what).into());
        }
        let missing = || SettingsError("give --dataset DIR, or data.dataset in the file".into());
        let root = self.dataset.or(settings.dataset).ok_or_else(missing)?;
        let interrupt = Interrupt::listen()?;
        let device = self.device.open()?;
        let dataset = open_dataset(&root)?;
        // Before anything is written.
        settings.plan.network.spec(dataset.train.classes().len())?;
        let statistics = dataset.statistics(&dir, workers())?;
        let context = Context {
            device: &device,
            dataset: &dataset,
            statistics: &statistics,
            workers: workers(),
            interrupted: &|| interrupt.asked(),
        };
        let run = PreparedRun::new(&settings.plan, None, &context)?;
        eprintln!("run: {}, identity {}", dir.display(), run.identity().short());
        let mut view = TrainingView::new(&settings.plan);
        let finished = run.train(&dir, resume, &context, &mut |event| view.show(&event))?;
        drop(view);
        [&dataset.train, &dataset.val].into_iter().for_each(|folder| say_misnamed(folder));
        let Some(finished) = finished else {
            eprintln!("interrupted; the same command goes on after the last whole epoch");
            return Ok(interrupt.exit_code().into());
        };
        println!("{}", finished.weights_file().display());
        Ok(ExitCode::SUCCESS)
    }
}
