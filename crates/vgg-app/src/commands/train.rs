//! `vgg train`: one run from an experiment file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use vgg_experiment::PreparedRun;
use vgg_train::Resume;

use super::options::DeviceOptions;
use super::ranks::Ranks;
use super::saving::SavingOptions;
use super::workbench::Workbench;
use crate::console::{TrainingView, note, out};
use crate::settings::{Preset, SettingsError, preset_run, read_run};

#[derive(Args)]
pub(crate) struct Train {
    /// The experiment file.
    #[arg(required_unless_present = "preset")]
    file: Option<PathBuf>,
    /// A recipe that comes with the program, in the place of a file; --set network.config=D chooses the network.
    #[arg(long, value_enum, conflicts_with = "file")]
    preset: Option<Preset>,
    /// Print the preset, to start from, instead of training.
    #[arg(long, requires = "preset")]
    print: bool,
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
    saving: SavingOptions,
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
        if let Some(preset) = self.preset.filter(|_| self.print) {
            write!(out(), "{}", preset.text())?;
            return Ok(ExitCode::SUCCESS);
        }
        let ranks = Ranks::join()?;
        ranks.work(|| self.train(&ranks))
    }

    fn train(self, ranks: &Ranks) -> Result<ExitCode> {
        let settings = match (&self.file, self.preset) {
            (Some(file), _) => read_run(file, &self.set)?,
            (None, Some(preset)) => preset_run(preset, &self.set)?,
            (None, None) => return Err(SettingsError("name a file, or give --preset".into()).into()),
        };
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
        let plan = &settings.plan;
        let bench = Workbench::open(ranks, &self.device, || Ok(root), std::iter::once(plan), &dir)?;
        let finished = bench.work(&self.saving, |context| {
            let run = PreparedRun::new(plan, None, context)?;
            note(&format!("run: {}, identity {}", dir.display(), run.identity().short()));
            let mut view = TrainingView::new(plan);
            Ok(run.train(&dir, resume, context, &mut |event| view.show(&event))?)
        })?;
        let Some(finished) = finished else {
            return bench.interrupted("interrupted; the same command goes on from the last step");
        };
        if ranks.is_first() {
            writeln!(out(), "{}", finished.weights_file().display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
