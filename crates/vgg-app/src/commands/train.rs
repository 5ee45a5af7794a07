//! `vgg train`: one training run from a settings file or a preset.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use vgg_data::OnBadImage;
use vgg_error::printable;
use vgg_experiment::{PreparedRun, Preset, preset_run, read_run};
use vgg_train::Resume;

use super::data_options::TrainDataOptions;
use super::options::{DeviceOptions, choice};
use super::ranks::Ranks;
use super::saving::SavingOptions;
use super::train_session::TrainSession;
use crate::console::{TrainingView, note, out};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Train {
    /// TOML settings, or the run.json of an earlier run to repeat it.
    file: Option<PathBuf>,
    /// Built-in settings instead of a file: the paper's (for B to E also set
    /// network.init.from=A.safetensors and network.init.layers=paper), or torchvision's, in which every
    /// network starts from random weights. Choose the network with --set network.config=D.
    #[arg(long, value_parser = choice(&Preset::ALL), conflicts_with = "file")]
    preset: Option<Preset>,
    /// Print the unchanged preset, as a template for a file, instead of training.
    #[arg(long, requires = "preset", conflicts_with = "set")]
    print: bool,
    /// Override a setting, such as run.seed=2. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Data set; overrides data.dataset of the settings.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Output folder. Default: runs/NAME, where NAME is the run's name or the file's.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Resume an earlier run in the output folder; with never, fail if the folder holds a run.
    #[arg(long, value_enum, default_value = "auto")]
    resume: ResumeOption,
    #[command(flatten)]
    data: TrainDataOptions,
    /// What to do with an image that cannot be decoded: stop, or skip and list it. Overrides data.on_bad_image of the
    /// settings.
    #[arg(long, value_parser = choice(&OnBadImage::ALL))]
    on_bad_image: Option<OnBadImage>,
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
        let mut plan = match (&self.file, self.preset) {
            (Some(file), _) => read_run(file, &self.set)?,
            (None, Some(preset)) => preset_run(preset, &self.set)?,
            (None, None) => {
                return Err(
                    UsageError("pass a settings file, or --preset paper or torchvision".into()).into()
                );
            }
        };
        plan.data.on_bad_image = self.on_bad_image.unwrap_or(plan.data.on_bad_image);
        let dir = self.out.unwrap_or_else(|| PathBuf::from("runs").join(&plan.name));
        let resume = match self.resume {
            ResumeOption::Auto => Resume::Auto,
            ResumeOption::Never => Resume::Never,
        };
        if resume == Resume::Never && dir.join("run.json").exists() {
            let what = format!("{} already holds a run; choose another --out or remove it", printable(&dir));
            return Err(UsageError(what).into());
        }
        let missing = || UsageError("pass --dataset DIR, or set data.dataset in the file".into());
        let root = self.dataset.or_else(|| plan.data.dataset.clone()).ok_or_else(missing)?;
        plan.check_start()?;
        let session = TrainSession::open(
            ranks,
            &self.device,
            &self.data,
            || Ok(root),
            std::slice::from_ref(&plan),
            &dir,
        )?;
        let finished = session.work(&self.saving, |context| {
            let run = PreparedRun::new(&plan, None, context)?;
            note(&format!("run: {}, identity {}", printable(&dir), run.identity().short()));
            let mut view = TrainingView::new(&plan);
            Ok(run.train(&dir, resume, context, &mut |event| view.show(&event))?)
        })?;
        let Some(finished) = finished else {
            return session.interrupted("interrupted; rerun the same command to resume");
        };
        if ranks.is_first() {
            writeln!(out(), "{}", printable(&finished.weights_file()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
